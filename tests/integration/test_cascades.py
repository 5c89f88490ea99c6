import json

from builders.router_deployment import MODELS, app, total
from integration.live_traffic import settled

from clipper_agents import exits
from clipper_topics.manifests import PolicySpec

SURE, UNSURE = 0.96, 0.3
CASCADE = app(policy=PolicySpec(name="cascade", parameters={"budget": 0.5, "exploration": 0.1}))


def first(row):
    """Right and sure about even numbers, wrong and unsure about the others."""
    is_odd = int(row[0]) % 2
    return {"label": total(row) + is_odd, "confidence": UNSURE if is_odd else SURE}


async def answered(at, numbers):
    """Ask a query a number and tell the truth about it; the predictions, once all feedback is learned."""
    queries = {f"q{number}": [number, 1] for number in numbers}
    await at.ask(*({"query_id": query_id, "input": row} for query_id, row in queries.items()))
    found, _ = await at.predictions(*queries)
    await at.tell(*({"query_id": query_id, "label": sum(row)} for query_id, row in queries.items()))
    await settled(at, name="cascade")
    return [found[query_id] for query_id in queries]


async def test_a_cascade_asks_its_last_model_where_the_first_is_unsure_and_is_verified(at, command):
    await at.declare(CASCADE, *MODELS)
    async with at.host({"m:1": first, "n:1": total}), at.router():
        await answered(at, range(160))
        made = await answered(at, range(160, 400))
        for answers, confidence, share in ((made[::2], SURE, 0.05), (made[1::2], UNSURE, 0.95)):
            assert {(one.features[0], one.models[0].confidence) for one in answers} == {(confidence, confidence)}
            asked = [one for one in answers if len(one.models) > 1]
            assert abs(len(asked) / len(answers) - share) < 0.1
            for one in asked:
                assert [model.served for model in one.models] == [False, True]
                assert one.output == one.models[1].output
                assert one.served_propensity == one.models[1].propensity
        (verified,) = map(json.loads, await command("replay", "verify", "--json"))
        assert (verified["equal"], sum(one["feedbacks"] for one in verified["partitions"])) == (True, 400)
        (status,) = map(json.loads, await command("status", "--json", code=exits.FAILURE))
    first_version, last_version = status["applications"]["app"]["versions"]
    expected = first_version["expected"]
    assert expected["lower"] <= 0.5 <= expected["upper"]
    assert expected["labels"] > 100
    assert last_version["expected"] is None
