"""A vLLM engine in a process that was forked after it was loaded."""

from conftest import require_vllm
from test_fork import run_forking


def test_vllm_says_that_it_is_of_another_process() -> None:
    require_vllm()
    shown = run_forking("""
if __name__ == "__main__":
    engine = load_engine("vllm:tiny", kv_cache_memory_bytes=1 << 26, enforce_eager=True)
    first = ask(engine)

    def work():
        refused(lambda: ask(engine))
        engine.close()

    in_child(work)
    print("parent:", bool(first) and bool(ask(engine)))
    engine.close()
""")
    assert "EngineError: a loaded model works only in the process that made it" in shown
    assert "parent: True" in shown
