"""The second copy of an image is made by the host that the ring names, and only by one that keeps images."""

import pytest

from core.model import Host, Image
from nodeagent.services.image_service import ImageService
from nodeagent.services.whereabouts import Whereabouts
from tests.one_member import (
    HOST_ID,
    OTHER_ID,
    THIRD_ID,
    LoopClock,
    founded,
    in_virtual_time,
    running,
    until,
)


class Ages:
    def age_s(self, host_id: str) -> float:
        del host_id
        return 1.0


class Kept:
    """A host's image directory that takes every copy."""

    def __init__(self) -> None:
        self.received: list[str] = []

    async def receive(self, sha256: str, size_bytes: int, chunks) -> None:
        del size_bytes, chunks
        self.received.append(sha256)


@pytest.mark.parametrize("idle", [{"witness": True}, {"maintenance": True}])
def test_a_host_that_keeps_no_images_is_not_chosen_for_the_copy(idle):
    async def main() -> None:
        member = await founded(clock=LoopClock())
        await member.add_host(OTHER_ID, "h2", "192.0.2.2", **idle)
        await member.add_host(THIRD_ID, "h3", "192.0.2.3")
        services = []
        for name, id_ in (("h1", HOST_ID), ("h3", THIRD_ID)):
            node = member.node_of(id_, name)
            services.append(ImageService(node, Kept(), Ages(), Whereabouts(node, Ages())))
        # Whichever the ring would prefer, a dozen images are enough for it to prefer the idle one sometimes.
        images = [
            await member.add_image(f"i{number}", sha256=f"{number:064d}") for number in range(12)
        ]
        assert member.store.get(Host, OTHER_ID) is not None
        async with running(*(service.run for service in services)):
            for image in images:
                await until(lambda i=image: len(member.store.need(Image, i.id).host_ids) == 2)
        assert {i.host_ids for i in member.store.all(Image)} == {(HOST_ID, THIRD_ID)}

    in_virtual_time(main)
