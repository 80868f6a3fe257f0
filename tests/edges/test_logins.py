"""Logins by cookie through each edge: a real Django site is asked who a client is."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.django_site import DjangoSite
from tests.edges.edge import stand
from tests.login import as_page, site
from tests.peer import Refusal
from tests.support import Process, scaled

SLOW = [pytest.param(variant, marks=pytest.mark.slow) for variant in ("njs", "openresty", "openresty-trunk")]


@pytest.mark.parametrize("variant", ["plain", *SLOW])
async def test_a_session_of_the_site_is_a_login_here(start_process: Callable[..., Process], variant: str) -> None:
    site = DjangoSite(start_process)
    await site.start()
    async with stand(variant, AUTH__RECHECK_S=1, **site.settings) as s:

        async def refusal(**headers: str) -> tuple[int, str]:
            with pytest.raises(Refusal) as info:
                await s.peer("", raw_query="", headers=headers).connect()
            if info.value.status == 503:
                assert int(info.value.headers["retry-after"]) > 0
            return info.value.status, info.value.code

        session = await site.log_in()
        page = {"Cookie": f"theme=dark; {session}", "Origin": site.origin}
        async with s.peer("", raw_query="groups=news,secret", headers=page) as alice:
            assert (await alice.event())["client"] == "alice"
            assert (await alice.event())["stream"] == "group:secret"  # left: the site does not name it
            position = await s.node.push("groups/news", 1)
            assert (await alice.event())["offset"] == position["offset"]

            # A page of another origin has the same cookie, and is refused; so is who does not say where it is.
            for origin in ("http://127.0.0.1:1", "https://evil.example", "null"):
                assert await refusal(**page | {"Origin": origin}) == (403, "origin_not_allowed")
            assert await refusal(Cookie=session) == (401, "unauthorized")
            assert await refusal(Cookie="sessionid=made-up", Origin=site.origin) == (401, "unauthorized")

            await site.log_out(session)
            begun_s = time.monotonic()
            assert await refusal(**page) == (401, "unauthorized")
            assert await alice.ended(10) == 4009
            assert time.monotonic() - begun_s < scaled(5)

        # A dead site is no bad login.
        site.process.kill()
        assert await refusal(**page) == (503, "auth_unavailable")


async def test_no_other_node_is_asked_when_the_site_has_not_answered() -> None:
    """Lua alone decides that by itself; for nginx' own code the node says it by its status."""
    async with site() as asked, stand("openresty", nodes=2, **asked.settings()) as s:
        asked.sessions["s-alice"] = 500
        with pytest.raises(Refusal) as info:
            await s.peer("", raw_query="", headers=as_page("s-alice")).connect()
        assert (info.value.status, info.value.code) == (503, "auth_unavailable")
        assert len(asked.asked) == 1
