"""Options that several commands share, and the client configuration that they make.

``--url``, ``--token-file`` and ``--model`` may stand before the command or after it; after it wins.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

import typer

from diffusion_core.cli.output import open_console
from diffusion_core.config import ClientConfig, EngineConfig, from_environment
from diffusion_core.errors import CheckpointError, ConfigError, InvalidRequest
from diffusion_core.requests import CanvasCache, DecodingParams, EngineClient, Policy, SamplingParams

T = TypeVar("T")

_ATTEMPTS_AT_A_TERMINAL = 5

Url = Annotated[
    str, typer.Option("--url", metavar="URL", help="A remote engine. Default: $UNMASK_CLIENT_URL, else the local one.")
]
TokenFile = Annotated[str, typer.Option("--token-file", metavar="FILE", help="File that holds the engine's token.")]
Model = Annotated[str, typer.Option("--model", metavar="NAME", help="A model's name or folder. Default: the engine's.")]
FamilyOption = Annotated[
    str, typer.Option("--family", metavar="NAME", help="Family of --model where its files do not show it.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
PolicyOption = Annotated[Policy, typer.Option("--policy", help="How the decoder commits tokens.")]
BlockSize = Annotated[
    int, typer.Option("--block-size", min=0, help="Tokens denoised together; 0: the engine's choice.")
]
CacheOption = Annotated[
    CanvasCache, typer.Option("--cache", help="Keys kept within a block by a model that is denoised as a whole.")
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", min=0, help="Longest answer; 0: the engine's default.")]
Temperature = Annotated[float, typer.Option("--temperature", min=0.0, help="0 is greedy.")]
SampleSeed = Annotated[int, typer.Option("--sample-seed", min=0, help="Seed for a temperature above 0.")]
Language = Annotated[str, typer.Option("--language", metavar="ID", help="Default: by the file's name.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Which engine and which model; what stands before the command is kept in the context as one of these."""

    url: str = ""
    token_file: str = ""
    model: str = ""
    family: str = ""

    def over(self, ctx: typer.Context) -> Target:
        """This target, with what was given before the command where this one is silent."""
        outer = ctx.find_object(Target) or Target()
        return Target(
            url=self.url or outer.url,
            token_file=self.token_file or outer.token_file,
            model=self.model or outer.model,
            family=self.family or outer.family,
        )

    def make_client_config(self) -> ClientConfig:
        """The client configuration: flags before environment.

        Raises:
            typer.BadParameter: a flag or a variable is wrong.
        """
        with as_usage_error():
            engine = from_environment(EngineConfig, "engine")
            if self.model and (self.family or not _has_model(engine.model)):
                # A shared engine loads other models on demand, but it cannot start without its own.
                engine = replace(engine, model=self.model, edit_model=self.model)
            if self.family:
                engine = replace(engine, family=self.family)  # of its own model: another configuration, another engine
            config = from_environment(
                ClientConfig,
                "client",
                engine=engine,
                url=self.url or None,
                token_file=self.token_file or None,
                token="" if self.token_file else None,
            )
            is_patient = config.fallback != "none" or "UNMASK_CLIENT_MAX_ATTEMPTS" in os.environ
            # A person at a terminal would rather know within two seconds that nothing answers.
            return config if is_patient else replace(config, max_attempts=_ATTEMPTS_AT_A_TERMINAL)


def _has_model(name: str) -> bool:
    from diffusion_core.checkpoints.store import locate

    try:
        locate(name)
    except CheckpointError:
        return False
    return True


@contextmanager
def as_usage_error() -> Iterator[None]:
    """What a flag made wrong is bad usage: exit code 2."""
    try:
        yield
    except (ConfigError, InvalidRequest) as error:
        raise typer.BadParameter(str(error)) from None


def make_decoding(policy: Policy, block_size: int, cache: CanvasCache = CanvasCache.AUTO) -> DecodingParams:
    """Decoding parameters from flags."""
    with as_usage_error():
        return DecodingParams(policy=policy, block_size=block_size, cache=cache)


def parse_policies(text: str, block_size: int) -> list[DecodingParams]:
    """Decoding parameters for each policy named.

    Raises:
        typer.BadParameter: a name is unknown, or given twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [policy.value for policy in Policy]
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"policy {name!r} is unknown: known are {', '.join(known)}")
    if not names or len(set(names)) != len(names):
        raise typer.BadParameter("--policies names each policy once, separated by commas")
    with as_usage_error():
        return [DecodingParams(policy=Policy(name), block_size=block_size) for name in names]


def make_sampling(temperature: float, seed: int) -> SamplingParams:
    """Sampling parameters from flags."""
    with as_usage_error():
        return SamplingParams(temperature=temperature, seed=seed)


@asynccontextmanager
async def open_client(config: ClientConfig) -> AsyncIterator[EngineClient]:
    """The engine that the configuration names, closed at the end. A local one is started and has loaded its model."""
    from diffusion_core.net.launcher import LocalEngine, connect

    with _show_state() as on_state:
        client = connect(config, on_state=on_state)
        try:
            if isinstance(client, LocalEngine):
                await client.wait_ready()
        except BaseException:
            await client.aclose()
            raise
    try:
        yield client
    finally:
        await client.aclose()


@contextmanager
def _show_state() -> Iterator[Callable[[str, str], None]]:
    """Says on a terminal what a local engine is doing before it can answer; silent when it is ready at once."""
    console = open_console()

    def warn(state: str, detail: str) -> None:
        if state == "local":
            console.print(f"warning: {detail}", style="yellow", markup=False)

    if not console.is_terminal:
        yield warn
        return
    spinner = console.status("")

    def tell(state: str, detail: str) -> None:
        warn(state, detail)
        if state in {"starting", "loading"}:
            spinner.update(f"[dim]{detail}[/]")
            spinner.start()
        else:
            spinner.stop()

    try:
        yield tell
    finally:
        spinner.stop()


def run_with_client(config: ClientConfig, work: Callable[[EngineClient], Coroutine[Any, Any, T]]) -> T:
    """Run ``work`` with the engine; Ctrl-C cancels it, which cancels the engine's work too."""

    async def main() -> T:
        async with open_client(config) as client:
            return await work(client)

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        return asyncio.run(main())
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
