"""Starting a guest on a host whose lease is to come within seconds: right after its boot, or after a short cut."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from core.errors import ConflictError, PlatformError
from core.model import VM
from core.workflow_definition import StepRule
from nodeagent.workflows.vm_steps import StartGuest

VM1 = VM(id="v1", name="web1", cluster_id="c1", host_id="h1", cpus=1, memory_mib=128)


def start_refused_with(code: str) -> StartGuest:
    async def start(vm_id: str) -> None:
        raise ConflictError(f"VM {vm_id} can't start now", code=code)

    shop = SimpleNamespace(power=SimpleNamespace(start=start))
    return StartGuest(SimpleNamespace(vm=lambda: VM1, shop=shop))  # type: ignore[arg-type]  # as much of it as a start needs


async def refusal(code: str) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await start_refused_with(code).do()
    return caught.value


@pytest.mark.parametrize("code", ["guard-no-lease", "guard-lease-old", "guard-behind"])
async def test_a_start_is_tried_again_while_the_lease_may_come(code: str) -> None:
    error = await refusal(code)
    rule = StepRule(ref="start-guest")
    assert rule.pause_after(error, tries=1, spent_s=0.0) is not None
    assert rule.pause_after(error, tries=9, spent_s=60.0) is None, "not for ever"
    assert error.message == "VM v1 can't start now"


@pytest.mark.parametrize("code", ["guard-stale", "guard-stopping", "wrong-host"])
async def test_a_start_that_is_refused_for_good_is_not_tried_again(code: str) -> None:
    error = await refusal(code)
    assert error.code == code
    assert StepRule(ref="start-guest").pause_after(error, tries=1, spent_s=0.0) is None
