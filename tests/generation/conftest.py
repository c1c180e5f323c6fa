from tests.llm.conftest import *  # noqa: F403 - the fake server and its fixtures
