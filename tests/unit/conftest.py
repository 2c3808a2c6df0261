"""What the tests of the API share: a member with an image, and a client that may do everything. A test file may have its own."""

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from tests.api import ADMIN, app_of
from tests.one_member import OneMember, founded


@pytest.fixture
async def member() -> OneMember:
    made = await founded()
    await made.add_image()
    return made


@pytest.fixture
async def api(member: OneMember) -> AsyncIterator[TestClient]:
    async with TestClient(TestServer(app_of(member)), headers=ADMIN) as client:
        yield client
