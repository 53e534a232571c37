"""Unmask on Ray Serve: the engine's replicas as a deployment, and before them either `unmask serve --ray` or Ray.

``unmask serve --ray`` is the same server as without, with replicas instead of an engine of its own (:func:`deploy`).
On a cluster that Ray runs itself (KubeRay, ``serve deploy``), :func:`build` makes the whole application: gateways that
hold the same ASGI application behind Ray's own proxies, and the replicas.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.schema import LoggingConfig

from diffusion_core.config import MIB, EngineConfig, RayConfig, ServerConfig, from_environment
from diffusion_core.errors import ConfigError, Unreachable
from diffusion_core.net.auth import Authenticator, resolve_server_token
from diffusion_core.net.ray_engine import RayEngine
from diffusion_core.net.ray_replica import EngineReplica
from diffusion_core.net.state_files import resolve_folders

if TYPE_CHECKING:
    from ray.serve import Application
    from starlette.types import ASGIApp

APP_NAME = "unmask"
ENGINE_NAME = "engine"
# Requests and answers are small and travel beside it; Ray would take a third of the memory.
_OBJECT_STORE_BYTES = 80 * MIB
_HEALTH_PERIOD_S = 2.0

C = TypeVar("C", EngineConfig, ServerConfig, RayConfig)

logger = logging.getLogger(__name__)


def bind_engine(engine: EngineConfig, config: RayConfig) -> Application:
    """The deployment of replicas."""
    scaling: dict[str, Any] = {"num_replicas": config.min_replicas}
    if config.max_replicas > config.min_replicas:
        limits = AutoscalingConfig(
            min_replicas=config.min_replicas,
            max_replicas=config.max_replicas,
            target_ongoing_requests=config.target_ongoing,
        )
        scaling = {"num_replicas": None, "autoscaling_config": limits}
    router = RequestRouterConfig(request_router_class="diffusion_core.net.ray_router:AffinityRouter")
    deployment = serve.deployment(
        EngineReplica,
        name=ENGINE_NAME,
        max_ongoing_requests=config.max_ongoing,
        max_queued_requests=engine.max_queued,
        ray_actor_options={"num_cpus": config.cpus_per_replica, "num_gpus": config.gpus_per_replica},
        graceful_shutdown_timeout_s=config.drain_s,
        health_check_period_s=_HEALTH_PERIOD_S,
        request_router_config=router,
        # No line for each request: the server before them writes one.
        logging_config=LoggingConfig(enable_access_log=False),
        **scaling,
    )
    return deployment.bind(resolve_folders(engine))


def deploy(engine: EngineConfig, config: RayConfig) -> ClusterEngine:
    """Bring the replicas up, or replace those of another configuration one by one; returns when all run.

    Raises:
        ConfigError: the cluster cannot be started or joined.
        Unreachable: the replicas do not come up.
    """
    is_own = _join(config)
    serve.start(proxy_location="Disabled")
    try:
        handle = serve.run(bind_engine(engine, config), name=APP_NAME, route_prefix=None)
    except RuntimeError as error:
        raise Unreachable(f"the replicas do not come up ({type(error).__name__}): see the logs of Ray") from None
    return ClusterEngine(handle, is_own)


class ClusterEngine(RayEngine):
    """The engine of `unmask serve --ray`, which takes the replicas down when it is closed."""

    def __init__(self, handle: Any, is_own: bool) -> None:
        super().__init__(handle)
        self._is_own = is_own

    def start(self) -> None:
        """Take the signals back: Ray's own handler of SIGTERM aborts the process after three seconds."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.getsignal(number))

    async def aclose(self) -> None:
        """Let the replicas end what they have begun, then take them down, and the cluster if it was started here."""
        await asyncio.to_thread(self._take_down)

    def _take_down(self) -> None:
        serve.delete(APP_NAME)
        if self._is_own:
            serve.shutdown()
            ray.shutdown()


def build(args: Mapping[str, Any]) -> Application:
    """The application for Ray's own tools: ``import_path: diffusion_core.net.ray_app:build``.

    ``args`` has the tables ``engine``, ``server`` and ``ray`` of a configuration file, plus ``gateways`` (their
    number, 1). The gateways read their token from ``server.token_file`` or ``$UNMASK_SERVER_TOKEN`` on their own node.

    Raises:
        ConfigError: a table or a setting does not exist, or a value is wrong.
    """
    known = {"engine", "server", "ray", "gateways"}
    if unknown := sorted(set(args) - known):
        raise ConfigError(f"args.{unknown[0]} is no setting: known are {', '.join(sorted(known))}")
    engine = _table(EngineConfig, "engine", args)
    server = _table(ServerConfig, "server", args)
    config = _table(RayConfig, "ray", args)
    if server.token:
        raise ConfigError("args.server.token would be shown by Ray's dashboard: use server.token_file")
    gateway = serve.deployment(
        serve.ingress(_app_builder(server))(),
        name="gateway",
        num_replicas=int(args.get("gateways", 1)),
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0.1},
        graceful_shutdown_timeout_s=config.drain_s,
        logging_config=LoggingConfig(enable_access_log=False),
    )
    return gateway.bind(bind_engine(engine, config))


def _app_builder(server: ServerConfig) -> Any:
    def build_app() -> ASGIApp:
        from diffusion_core.net.server import create_app

        access: str | Authenticator
        if server.users == "database":
            from diffusion_core.net.access import open_access

            # The database is followed for as long as this process lives.
            access = ExitStack().enter_context(open_access(server))
        else:
            access = _read_token(server)
        name = serve.get_replica_context().app_name
        return create_app(RayEngine(serve.get_deployment_handle(ENGINE_NAME, name)), server, access)

    return build_app


def _read_token(server: ServerConfig) -> str:
    token = os.environ.get("UNMASK_SERVER_TOKEN", "")
    if not server.token_file and not token:
        raise ConfigError("the gateways need one token: give server.token_file or UNMASK_SERVER_TOKEN")
    return resolve_server_token(server if server.token_file else replace(server, token=token))


def _table(cls: type[C], name: str, args: Mapping[str, Any]) -> C:
    table = args.get(name) or {}
    try:
        return from_environment(cls, name, **table)
    except TypeError:
        raise ConfigError(f"args.{name} holds a setting that does not exist, or of the wrong type") from None


def _join(config: RayConfig) -> bool:
    """Join the cluster, or start one; whether it was started."""
    if ray.is_initialized():
        return False
    # Ray tells its makers how it is used unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    try:
        if config.address:
            ray.init(address=config.address, **quiet)
            return False
        needed = config.max_replicas * config.cpus_per_replica + 1
        ray.init(
            num_cpus=max(os.cpu_count() or 1, int(needed + 0.999)),
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            **quiet,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"ray.address is {config.address!r}" if config.address else "a cluster cannot be started"
        raise ConfigError(f"{where}: {type(error).__name__}; see the logs of Ray") from None
    return True
