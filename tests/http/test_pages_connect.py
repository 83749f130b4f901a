"""What the Connect page tells an application that sends by itself."""

from pathlib import Path

from rollout.gateway.upstream import UpstreamPhase, UpstreamState
from rollout.settings import DEFAULT_OPENROUTER, Settings, Upstreams
from tests.http.api_support import a_world
from tests.http.pages_support import a_browser, words


async def test_an_application_that_sends_by_itself_is_told_where_to_and_never_a_secret(tmp_path: Path) -> None:
    data = tmp_path / "it's data"
    with a_world(tmp_path, Settings(data_dir=data)) as world:
        said = words((await a_browser(world).get("/connect")).text)
        for line in (
            "export OPENROUTER_BASE_URL=http://127.0.0.1:1/api/v1",
            "export OPENROUTER_API_KEY=sk-or-simulator",
            "export LITELLM_BASE_URL=http://127.0.0.1:4000",
            "export LITELLM_MASTER_KEY='<your key>'",
        ):
            assert line in said
        data.mkdir(exist_ok=True)
        (data / "litellm.key").write_text("sk-nobody-may-read-this")
        world.upstream = UpstreamState(DEFAULT_OPENROUTER, simulated=False, phase=UpstreamPhase.OK)
        said = words((await a_browser(world).get("/connect")).text)
        assert "OPENROUTER_BASE_URL" not in said
        assert "export OPENROUTER_API_KEY='<your key>'" in said
        assert f"""export LITELLM_MASTER_KEY="$(cat '{tmp_path}/it'"'"'s data/litellm.key')\"""" in said
        assert "sk-nobody-may-read-this" not in said


async def test_a_gateway_whose_key_was_given_has_that_key_filled_in_by_a_person(tmp_path: Path) -> None:
    (tmp_path / "litellm.key").write_text("sk-another-one")
    settings = Settings(data_dir=tmp_path, upstreams=Upstreams(litellm_key="sk-nobody-may-read-this"))
    with a_world(tmp_path, settings) as world:
        said = words((await a_browser(world).get("/connect")).text)
    assert "export LITELLM_MASTER_KEY='<your key>'" in said
    assert "sk-nobody" not in said
