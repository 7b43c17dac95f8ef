"""CreateFleet as EC2 does it, on an emulator that only launches.

Lifecycle of a request: parsed and checked -> its client token looked up (same request: the same
answer; another: refused) -> the zones of its subnets and its launch templates looked up -> planned
around what the fault rules close -> one rewritten request for each launch of the plan, signed with
the caller's own key, so that its permissions count -> one answer with instances and errors.

A request whose signature cannot be renewed (an access key that the interceptor never saw handed
out) goes through as it is, without capacity faults; the record then says `not_rewritten`.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode
from xml.etree import ElementTree as ET

from botocore.loaders import Loader

from runsfleet_cli.local.emulator_gaps.fleet_model import (
    FleetRequest,
    Launch,
    Override,
    Plan,
    Refusal,
    fingerprint,
    fleet_xml,
    parse_fleet,
    plan_fleet,
    pool_of,
    rewritten_form,
    unknown_type,
)
from runsfleet_cli.local.emulator_gaps.instances import InstanceBook, InstanceFacts, dry_run_answer
from runsfleet_cli.local.interceptor.answers import ec2_answer, error_answer
from runsfleet_cli.local.interceptor.aws_request import Answer, AwsRequest
from runsfleet_cli.local.interceptor.proxy import Forward, Interceptor

if TYPE_CHECKING:
    from runsfleet_cli.local.emulator_gaps.parameters import PublicParameters

_VERSION = "2016-11-15"
_LAUNCHED = re.compile(rb"<item>(i-[0-9a-f]+)</item>")
_RESOLVE = "resolve:ssm:"


@dataclass(frozen=True, slots=True)
class _Template:
    image_id: str = ""
    instance_type: str = ""
    metadata_options: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class _Token:
    fingerprint: str
    done: asyncio.Future[Answer] = field(default_factory=asyncio.Future)


class CreateFleetAsEc2Does:
    """Idempotency, priorities, spot and on-demand split, capacity, DryRun, unknown types.

    Args:
        interceptor: For its fault rules, its signing and its own requests.
        book: Told of each launch.
        parameters: Resolves `resolve:ssm:` images.
    """

    def __init__(
        self, interceptor: Interceptor, book: InstanceBook, parameters: PublicParameters
    ) -> None:
        self._interceptor = interceptor
        self._book = book
        self._parameters = parameters
        self._tokens: dict[tuple[str, str], _Token] = {}
        self._zones: dict[str, str] = {}
        self._templates: dict[tuple[str, str], _Template] = {}

    def wants(self, request: AwsRequest) -> bool:
        """CreateFleet."""
        return request.is_call("ec2", "CreateFleet")

    async def answer(self, request: AwsRequest, forward: Forward) -> Answer:
        """Launch what is to be had."""
        fleet = parse_fleet(request.parameters)
        if isinstance(fleet, FleetRequest):
            known = await asyncio.to_thread(known_instance_types)
            fleet = unknown_type(fleet, known) or fleet
        if isinstance(fleet, Refusal):
            return error_answer(request, fleet.code, fleet.status, fleet.message)
        if fleet.kind != "instant":
            return await forward(request)
        if not fleet.token or fleet.dry_run:
            return await self._launch(request, fleet, forward)
        return await self._once(request, fleet, forward)

    async def _once(self, request: AwsRequest, fleet: FleetRequest, forward: Forward) -> Answer:
        """One launch for each client token, however often it is asked for."""
        key = (request.operation.region, fleet.token)
        mark = fingerprint(request.parameters)
        token = self._tokens.get(key)
        if token is not None:
            if token.fingerprint != mark:
                message = (
                    "Arguments on this idempotent request are inconsistent with arguments used in "
                    "previous request(s)."
                )
                return error_answer(request, "IdempotentParameterMismatch", 400, message)
            request.notes["idempotent"] = True
            return _copy(await asyncio.shield(token.done))
        token = self._tokens[key] = _Token(mark)
        try:
            answer = await self._launch(request, fleet, forward)
        except BaseException:
            # nobody may wait for an answer that will not come
            self._tokens.pop(key, None)
            token.done.cancel()
            raise
        token.done.set_result(answer)
        if not answer.ok:
            # a refused request may be repeated, corrected or not
            self._tokens.pop(key, None)
        return _copy(answer)

    async def _launch(self, request: AwsRequest, fleet: FleetRequest, forward: Forward) -> Answer:
        await self._look_up_zones(fleet.overrides, request.operation.region)
        plan = self._plan(request, fleet)
        launches: Sequence[Launch] = plan.launches
        if fleet.dry_run or not launches:
            # asks for nothing, but is refused to who may not ask
            launches = (Launch(fleet.overrides[0], "spot" if fleet.spot else "on-demand", 0),)
        fleet_id = f"fleet-{uuid.uuid4()}"
        launched: list[tuple[Launch, tuple[str, ...]]] = []
        form = dict(parse_qsl((request.body or b"").decode(), keep_blank_values=True))
        for launch in launches:
            body = urlencode(rewritten_form(form, launch)).encode()
            rewritten = await self._interceptor.rewritten(request, body)
            if rewritten is None:
                request.notes["not_rewritten"] = "unknown access key"
                return await forward(request)
            answer = await forward(rewritten)
            if not answer.ok:
                return answer
            ids = tuple(found.decode() for found in _LAUNCHED.findall(answer.body))
            filled = await self._remember(request, launch, ids, fleet_id)
            launched.append((filled, ids))
        if fleet.dry_run:
            return dry_run_answer(request)
        everyone = [one for _, ids in launched for one in ids]
        request.context["faults"] = plan.rules
        request.notes |= {
            "fleet_id": fleet_id,
            "instances": everyone,
            "launches": [
                {
                    "type": launch.override.instance_type,
                    "zone": pool_of(launch.override, self._zones, launch.capacity_type).zone,
                    "capacity_type": launch.capacity_type,
                    "count": len(ids),
                }
                for launch, ids in launched
                if ids
            ],
            "errors": sorted({shortage.code for shortage in plan.shortages}),
        }
        if everyone:
            self._book.tell("launched", tuple(everyone), request)
        return ec2_answer("CreateFleet", fleet_xml(fleet_id, launched, plan.shortages, self._zones))

    def _plan(self, request: AwsRequest, fleet: FleetRequest) -> Plan:
        wanted = [
            name for name, count in (("spot", fleet.spot), ("on-demand", fleet.on_demand)) if count
        ]
        pools = [
            pool_of(override, self._zones, name) for override in fleet.overrides for name in wanted
        ]
        closures = (
            [] if fleet.dry_run else self._interceptor.faults.closures(request, pools, request.now)
        )
        return plan_fleet(fleet, self._zones, closures)

    async def _remember(
        self, request: AwsRequest, launch: Launch, ids: tuple[str, ...], fleet_id: str
    ) -> Launch:
        """Keep the facts of new instances; returns the launch with the type that was launched."""
        override = launch.override
        region = request.operation.region
        template = await self._template(override, region) if ids else _Template()
        instance_type = override.instance_type or template.instance_type
        image = override.image_id or template.image_id
        if image.startswith(_RESOLVE):
            image = await self._parameters.resolve(image.removeprefix(_RESOLVE), region)
        pool = pool_of(override, self._zones, launch.capacity_type)
        for instance_id in ids:
            self._book.add(
                InstanceFacts(
                    instance_id=instance_id,
                    lifecycle=launch.capacity_type,
                    instance_type=instance_type,
                    zone=pool.zone,
                    image_id=image,
                    metadata_options=template.metadata_options,
                    fleet_id=fleet_id,
                    launched_at=request.now,
                )
            )
        if instance_type == override.instance_type:
            return launch
        typed = Override(
            override.template,
            override.version,
            override.by_name,
            instance_type,
            override.subnet_id,
            override.zone,
        )
        return Launch(typed, launch.capacity_type, launch.count)

    async def _look_up_zones(self, overrides: Sequence[Override], region: str) -> None:
        wanted = {one.subnet_id for one in overrides if one.subnet_id} - self._zones.keys()
        if not wanted:
            return
        answer = await self._interceptor.backend.ask(
            "ec2", "DescribeSubnets", {}, version=_VERSION, region=region
        )
        if answer.ok:
            for item in _leaves(answer.body, "subnetSet"):
                self._zones[item.get("subnetId", "")] = item.get("availabilityZone", "")

    async def _template(self, override: Override, region: str) -> _Template:
        key = (override.template, override.version)
        # $Latest and $Default move; a numbered version never changes
        if key in self._templates and override.version.isdigit():
            return self._templates[key]
        reference = "LaunchTemplateName" if override.by_name else "LaunchTemplateId"
        answer = await self._interceptor.backend.ask(
            "ec2",
            "DescribeLaunchTemplateVersions",
            {reference: override.template, "LaunchTemplateVersion.1": override.version},
            version=_VERSION,
            region=region,
        )
        found = _template_of(answer.body) if answer.ok else _Template()
        self._templates[key] = found
        return found


@cache
def known_instance_types() -> frozenset[str]:
    """Every instance type of botocore's EC2 model; loading it takes some 100 ms, once."""
    model = Loader().load_service_model("ec2", "service-2")
    return frozenset(model["shapes"]["InstanceType"]["enum"])


def _copy(answer: Answer) -> Answer:
    return Answer(answer.status, answer.headers.copy(), answer.body)


def _template_of(body: bytes) -> _Template:
    root = ET.fromstring(body)  # noqa: S314  (the emulator's own)
    data = next((node for node in root.iter() if _name(node) == "launchTemplateData"), None)
    if data is None:
        return _Template()
    texts = {_name(node): node.text or "" for node in data if len(node) == 0}
    options = next((node for node in data if _name(node) == "metadataOptions"), None)
    return _Template(
        image_id=texts.get("imageId", ""),
        instance_type=texts.get("instanceType", ""),
        metadata_options=tuple(
            (_name(node), node.text or "")
            for node in (options if options is not None else ())
            # of the template's own; an instance has another
            if _name(node) != "state"
        ),
    )


def _leaves(body: bytes, container: str) -> list[dict[str, str]]:
    root = ET.fromstring(body)  # noqa: S314  (the emulator's own)
    found = next((node for node in root.iter() if _name(node) == container), None)
    if found is None:
        return []
    return [{_name(leaf): leaf.text or "" for leaf in item if len(leaf) == 0} for item in found]


def _name(node: ET.Element) -> str:
    return node.tag.rpartition("}")[2]
