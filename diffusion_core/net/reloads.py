"""What a running server reads anew when it changes, or on SIGHUP: its certificate and its models."""

from __future__ import annotations

import asyncio
import logging
import signal

from diffusion_core.config import ServerConfig
from diffusion_core.errors import UnmaskError
from diffusion_core.net.certificates import Certificate
from diffusion_core.net.model_reloads import ModelReloads
from diffusion_core.net.watch_files import look, watch

_POLL_S = 2.0
# Certificate and key are written one after the other.
_SETTLE_S = 2.0

logger = logging.getLogger(__name__)


class Reloads:
    """Watches files in the background as long as :meth:`run` runs; ``follows_hangup``: and SIGHUP."""

    def __init__(
        self, config: ServerConfig, certificate: Certificate | None, models: ModelReloads, *, follows_hangup: bool
    ) -> None:
        self._certificate, self._models = certificate, models
        self._follows_hangup = follows_hangup and hasattr(signal, "SIGHUP")
        self._model_settle_s = config.reload_settle_s
        self._requested = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        if self._follows_hangup:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._requested.set)
        async with asyncio.TaskGroup() as watchers:
            watchers.create_task(self._follow_requests())
            if self._model_settle_s > 0:
                poll_s = min(_POLL_S, self._model_settle_s)
                watchers.create_task(self._models.watch(poll_s, self._model_settle_s))
            if (certificate := self._certificate) is not None:
                watchers.create_task(
                    watch(lambda: look(certificate.paths), self._reload_certificate, poll_s=_POLL_S, settle_s=_SETTLE_S)
                )

    async def _follow_requests(self) -> None:
        while True:
            await self._requested.wait()
            self._requested.clear()
            await self._reload_certificate()
            try:
                await self._models.reload_all()
            except UnmaskError as error:
                # One that ended this task would end the others, and the certificate would expire unnoticed.
                logger.warning("models were not reloaded: %s", error)

    async def _reload_certificate(self) -> None:
        if self._certificate is not None:
            await asyncio.to_thread(self._certificate.reload)
