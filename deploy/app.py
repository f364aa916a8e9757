"""The Ray Serve application: a front that answers HTTP, and the replicas behind it. `serve deploy` calls `build`."""

from __future__ import annotations

import logging
import sys
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from deploy.cache import Answer
from deploy.settings import RequestLimits, Settings, read_aliases, served_voices
from flowtts_core.config import fingerprint
from flowtts_core.errors import ConfigError
from flowtts_core.text.frontends.lexicon import load_lexicon
from flowtts_core.voice import load_card, with_lexicon
from flowtts_core.watermark.marking import Marking, read_key

NAME = "flowtts"
LOGGING = LoggingConfig(enable_access_log=False)  # `deploy.guard` writes a line for each request
ELSEWHERE_S = 5.0  # for other fronts to say whether they have an answer
MAX_ONGOING = 2000  # of a front; the replicas' own queues are the bound that clients meet


class ServeArgs(BaseModel):
    """The `args` of the application in `serve.yaml`, and of `flowtts serve`.

    `voices` are names, folders or NAME=FOLDER, of which a replica keeps `max_voices` loaded; folders must be on every node.
    `aliases` are NAME=VOICE or NAME=VOICE@SPEAKER: other names of voices, for models too.
    A replica makes `max_active` answers at once, and refuses more: on a processor more of them only make all of them wait, for a
    GPU give more. `max_queued_s` bounds the audio that these may still have to come.
    `keys` is a keys file; without one, `without_keys` must say that everybody may ask. With `local_only`, requests must name
    this machine, or one of `allowed_hosts`. `instance` is what the proxy must say with each request (see `deploy.guard`).
    With `allow_cloning` clients may have recordings imitated (without it, only those whose key has the right). Those that they
    upload are kept in `references`, a folder or s3:// place that all fronts share.
    All answers are marked as synthetic, unless `watermark` is false or, with `allow_unmarked`, a request asks for none.
    `watermark_key` is a file of secret bytes where the application is built; by default FLOWTTS_WATERMARK_KEY of that process.
    """

    model_config = ConfigDict(extra="forbid")
    voices: list[str] = Field(default_factory=list)
    aliases: list[str] = Field(default_factory=list)
    lexicon: str | None = None
    keys: str | None = None
    without_keys: bool = False
    local_only: bool = False
    allowed_hosts: list[str] = Field(default_factory=list)
    instance: str | None = None
    cache_mb: int = Field(default=64, ge=0)
    origins: list[str] = Field(default_factory=list)
    log_texts: bool = False
    fronts: int = Field(default=1, ge=1)
    front_cpus: float = Field(default=0.1, ge=0)
    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int = Field(default=1, ge=1)
    speaker_cpus: float = Field(default=1.0, ge=0)
    speaker_gpus: float = Field(default=0.0, ge=0)
    threads: int = Field(default=1, ge=1)
    max_voices: int = Field(default=4, ge=1)
    max_active: int = Field(default=8, ge=1)
    max_queued_s: float = Field(default=600.0, gt=0)
    downscale_delay_s: float = Field(default=60.0, ge=0)
    drain_s: float = Field(default=30.0, ge=0)
    limits: dict[str, float] = Field(default_factory=dict)
    allow_cloning: bool = False
    references: str | None = None
    watermark: bool = True
    watermark_number: int = Field(default=0, ge=0, le=2047)
    watermark_key: str | None = None
    allow_unmarked: bool = False


def build(args: ServeArgs) -> serve.Application:
    """The application.

    Raises:
        ConfigError: without keys that nobody has waived, and for limits that do not exist.
        VoiceError: for a voice that does not exist, or that takes no such lexicon.
        TextError: for a lexicon that cannot be read.
    """
    args = ServeArgs.model_validate(args)  # `serve deploy` gives a dict: it cannot read annotations that are strings
    if args.keys is None and not args.without_keys:
        remedy = "set `keys` to a file made by `flowtts serve --new-key`, or `without_keys: true` to let everybody in"
        raise ConfigError("the server has no API keys", remedy)
    if args.max_replicas < args.min_replicas:
        raise ConfigError(f"max_replicas = {args.max_replicas} is less than min_replicas = {args.min_replicas}")
    voices, lexicon = served_voices(args.voices), load_lexicon(args.lexicon) if args.lexicon else {}
    for voice in voices:
        with_lexicon(load_card(voice.folder), lexicon)
    marking = _marking(args)
    settings = Settings(
        voices=voices,
        watermark=None if marking is None else marking.identity,
        allow_unmarked=args.allow_unmarked,
        aliases=read_aliases(args.aliases, voices),
        lexicon=fingerprint(lexicon),
        limits=_limits(args.limits),
        keys=args.keys,
        local_only=args.local_only,
        allowed_hosts=tuple(name.lower() for name in args.allowed_hosts),
        instance=args.instance,
        cache_bytes=args.cache_mb << 20,
        origins=tuple(args.origins),
        log_texts=args.log_texts,
        cloning=args.allow_cloning,
        references=args.references,
    )
    if args.allow_cloning and all(voice.prompt == "none" for voice in voices):
        raise ConfigError("allow_cloning: no voice here imitates recordings", "serve one that does, or leave it out")
    if args.fronts > 1 and args.references is None and args.allow_cloning:
        raise ConfigError("several fronts need one place for uploaded recordings", "set `references` to a shared place")
    replica: Any = VoiceReplica  # Deployments, which the decorators make of the classes
    ingress: Any = FrontReplica
    limits = args.max_voices, args.max_active, args.max_queued_s, args.drain_s, args.threads
    replicas = replica.options(**_replica_options(args)).bind(settings.voices, *limits, lexicon, marking)
    front = ingress.options(
        num_replicas=args.fronts, ray_actor_options={"num_cpus": args.front_cpus}, logging_config=LOGGING
    )
    several = args.fronts > 1 and hasattr(
        DeploymentHandle, "broadcast"
    )  # older Rays lack it: there each front knows its own
    return front.bind(settings, replicas, several, marking)


def _marking(args: ServeArgs) -> Marking | None:
    if args.watermark:
        return Marking(args.watermark_number, read_key(args.watermark_key, "watermark_key"))
    if args.watermark_number or args.watermark_key is not None:
        raise ConfigError("without a watermark it can say nothing", "leave out its number and its key")
    return None


def _limits(given: dict[str, float]) -> RequestLimits:
    known = {name: type(value) for name, value in vars(RequestLimits()).items()}
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise ConfigError(f"limits: unknown {', '.join(unknown)}", f"use {', '.join(known)}")
    return RequestLimits(**{name: known[name](value) for name, value in given.items()})


def _replica_options(args: ServeArgs) -> dict[str, Any]:
    options: dict[str, Any] = {
        "logging_config": LOGGING,
        "ray_actor_options": {"num_cpus": args.speaker_cpus, "num_gpus": args.speaker_gpus},
        "graceful_shutdown_timeout_s": args.drain_s + 5,
    }
    if args.min_replicas == args.max_replicas:
        return {**options, "num_replicas": args.min_replicas}
    scaling = AutoscalingConfig(
        min_replicas=args.min_replicas,
        initial_replicas=max(1, args.min_replicas),
        max_replicas=args.max_replicas,
        policy=AutoscalingPolicy(policy_function="deploy.scaling:by_queued_audio"),
        metrics_interval_s=1.0,
        look_back_period_s=3.0,
        upscale_delay_s=1.0,
        downscale_delay_s=args.downscale_delay_s,
    )
    return {**options, "autoscaling_config": scaling, "num_replicas": None}


@serve.deployment(
    name="Speaker",  # as dashboards and alerts of running servers know it
    max_ongoing_requests=1000,
    health_check_period_s=2.0,
    health_check_timeout_s=15.0,
    graceful_shutdown_wait_loop_s=0.2,
)
class VoiceReplica:
    """`deploy.replica.VoiceHost`, whose torch is imported in the replica alone."""

    def __init__(self, *given: Any) -> None:
        from deploy.replica import VoiceHost

        log_to_stdout()
        self._host = VoiceHost(*given)

    async def locate(self) -> tuple[str, int, bytes]:
        return await self._host.locate()

    async def check_health(self) -> None:
        await self._host.check_health()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return await self._host.record_autoscaling_stats()

    async def __del__(self) -> None:
        await self._host.drain()


@serve.deployment(
    name="Front",
    max_ongoing_requests=MAX_ONGOING,
    health_check_period_s=5.0,
    health_check_timeout_s=15.0,
    graceful_shutdown_timeout_s=60.0,
    graceful_shutdown_wait_loop_s=0.2,
)
@serve.ingress()
class FrontReplica:
    """Answers HTTP by the application of `deploy.api`; imports no torch."""

    def __init__(
        self, settings: Settings, replicas: DeploymentHandle, several: bool, marking: Marking | None = None
    ) -> None:
        from deploy.front import Front
        from deploy.link import Address
        from deploy.metrics import RayMeters
        from deploy.pool import ReplicaPool

        async def locate() -> Address:
            return Address(*await replicas.locate.remote())

        log_to_stdout()
        pool = ReplicaPool(locate, start_s=settings.limits.start_s, everywhere=settings.voices[0].name)
        self._front = Front(settings, pool, RayMeters(), _kept_elsewhere if several else None, marking)

    async def kept(self, answer_id: str, owner: str) -> Answer | None:
        """Return an answer that this front made, for another front that was asked for it."""
        return self._front.answer_ids.find(answer_id, owner)

    async def drain(self) -> tuple[int, int]:
        """See `Front.drain`; of this front."""
        return self._front.drain()

    def __serve_build_asgi_app__(self) -> Any:
        from deploy.api import create_app

        return create_app(self._front, tell_id=False)


async def _kept_elsewhere(answer_id: str, owner: str) -> Answer | None:
    """Ask all fronts for an answer; those that do not answer in time count as if they had none."""
    asked = serve.get_deployment_handle("Front", NAME).broadcast("kept", answer_id, owner)
    try:
        answers = await asked.results_async(timeout_s=ELSEWHERE_S, return_exceptions=True)
    except TimeoutError:
        return None
    return next((answer for answer in answers if isinstance(answer, Answer)), None)


def log_to_stdout() -> None:
    """Our loggers to this process's standard output, which Ray keeps in the session's logs: one JSON line a request."""
    for name in ("flowtts", "deploy", "flowtts_core"):
        logger = logging.getLogger(name)
        if not logger.handlers:
            handler = logging.StreamHandler(sys.stdout)
            handler.setFormatter(logging.Formatter("%(message)s"))
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False
