"""The stage that tests of killed processes stand on: one installation a module, its processes ended after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.db.engine import open_engine
from infra.db.migrate import migrate
from infra.embedded import use_engines
from tests.acceptance.stage import Stage
from tests.integration.ground import Ground, cleared


@pytest.fixture(scope="module")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("installation")
    with use_engines(folder / "data") as engines:
        engine = open_engine(engines.database_url)
        migrate(engine)
        yield Stage(folder, engines, engine)
        engine.dispose()


@pytest.fixture
def stage(_stage: Stage) -> Iterator[Stage]:
    yield _stage
    _stage.end()


@pytest.fixture
def ground(stage: Stage) -> Ground:
    (stage.folder / "log").write_bytes(b"")
    return cleared(stage.engine)
