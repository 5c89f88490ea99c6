"""The router as a process."""

from clipper_agents.observability.exposition import serve_metrics
from clipper_agents.router.app import RouterProcess
from clipper_agents.settings.workers import RouterSettings
from clipper_agents.streaming.storage import claim
from clipper_agents.streaming.worker_process import keep_ready_line, run_worker


def run(settings: RouterSettings) -> None:
    """Route until SIGTERM; prints `ready role=router instance=... metrics=PORT` when it serves.

    Raises:
        StorageRefused: the data directory cannot be written, or another process uses it.
        StorageFailed: there is no space in it.
    """
    keep_ready_line()
    claim(settings.data_dir)
    ports: list[int] = []

    def make() -> RouterProcess:
        process = RouterProcess(settings)
        ports.append(serve_metrics(process.metrics.registry, settings.metrics_port, settings.metrics_address))
        return process

    run_worker(make, lambda: f"ready role=router instance={settings.instance} metrics={ports[0]}", settings.kafka)
