"""Which engine a session ends at when its settings change while a connection is still being closed."""

from __future__ import annotations

import asyncio

from diffusion_core.config import ClientConfig
from diffusion_core.requests import Health
from lsp_server.positions import Encoding
from lsp_server.session import ClientFacts, Session

FACTS = ClientFacts(
    has_inline_completion=True, has_apply_edit=True, has_configuration=False, has_configuration_registration=False,
    has_progress=False, has_file_watching=False, has_code_action_literals=True, has_edit_prompt=False,
)  # fmt: skip


class SlowToClose:
    """An engine's client whose connection takes a moment to end."""

    def __init__(self, config: ClientConfig) -> None:
        self.config, self.is_closed = config, False

    async def health(self) -> Health:
        return Health(
            status="ready", version="1", device="cpu", dtype="float32", models=(), memory_bytes=0, num_active=0,
            num_completed=0, num_forwards=0, uptime_ms=0.0, latency_p50_ms=0.0, latency_p95_ms=0.0, notices=(),
        )  # fmt: skip

    async def aclose(self) -> None:
        await asyncio.sleep(0.05)
        self.is_closed = True


def open_session(clients: list[SlowToClose]) -> Session:
    async def connect(config: ClientConfig, on_state: object) -> SlowToClose:
        clients.append(SlowToClose(config))
        return clients[-1]

    def ignore(*_: object) -> None:
        return None

    return Session(facts=FACTS, encoding=Encoding.UTF16, notify=ignore, report_problem=ignore, connect=connect)


async def test_the_settings_of_the_last_change_have_the_last_word() -> None:
    clients: list[SlowToClose] = []
    session = open_session(clients)
    changes = []
    for number in range(4):
        session.configure({"engine": {"url": f"http://engine:{number}"}})
        changes.append(asyncio.create_task(session.connect()))
        await asyncio.sleep(0.02)  # shorter than an end of a connection
    await asyncio.gather(*changes)
    await asyncio.wait_for(session.engine.wait_ready(), 5)
    assert session.engine.config is not None and session.engine.config.url == "http://engine:3"
    (left,) = [client for client in clients if not client.is_closed]
    assert left.config.url == "http://engine:3"
    await session.aclose()
    assert left.is_closed
    assert len(asyncio.all_tasks()) == 1, "a watcher goes on"


async def test_a_restart_takes_the_settings_that_came_meanwhile() -> None:
    clients: list[SlowToClose] = []
    session = open_session(clients)
    session.configure({"engine": {"url": "http://engine:1"}})
    await session.connect()
    await asyncio.wait_for(session.engine.wait_ready(), 5)
    restart = asyncio.create_task(session.restart_engine())
    await asyncio.sleep(0.01)
    session.configure({"engine": {"url": "http://engine:2"}})
    await asyncio.gather(restart, session.connect())
    assert session.engine.config is not None and session.engine.config.url == "http://engine:2"
    await session.aclose()
