"""Routers that share a group under traffic, and what each of them owns."""

from confluent_kafka.admin import AdminClient
from e2e.programs import Program, until
from faults.restored import end
from faults.under_traffic import UnderTraffic

PARTITIONS = 4


class Routers(UnderTraffic):
    """Routers by instance; each that comes or goes disturbs the group."""

    in_partitions = True

    def join(self, instance: str, place: str = "data", **environ: str) -> Program:
        """A router, on a machine of its own when a place is given."""
        self.fault()
        deployment = self.deployment
        machine = deployment._replace(data=deployment.folder / place, environ=deployment.environ | environ)
        return self.serve(machine.worker("router", instance=instance))

    def leave(self, router: Program) -> None:
        self.fault()
        end(router)

    def owned(self) -> dict[str, set[int]]:
        """Partitions of the queries by instance, as the group's coordinator says."""
        admin, group = AdminClient({"bootstrap.servers": self.client.bootstrap}), self.catalogue.router_group
        members = admin.describe_consumer_groups([group])[group].result(30).members  # type: ignore[attr-defined]
        return {
            str(member.group_instance_id): {
                tp.partition for tp in member.assignment.topic_partitions if tp.topic == self.catalogue.queries
            }
            for member in members
        }

    def settled(self, *instances: str) -> dict[str, set[int]]:
        """What each owns, once these and no others own all partitions; they answer in each of them."""

        def complete() -> dict[str, set[int]] | None:
            owned = self.owned()
            all_there = owned.keys() == {*instances} and set().union(*owned.values()) == set(range(PARTITIONS))
            return owned if all_there and all(owned.values()) else None

        owned = until(f"{instances} share all partitions", complete)
        self.flows()
        return owned
