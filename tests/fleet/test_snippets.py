"""What the documentation shows really runs: the TypeScript client against a server process."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from tests.fleet.manifests import ROOT
from tests.service.test_process import process, serving

HERE = Path(__file__).parent
BEFORE = "let heard = 0; const play = (data) => (heard += data.length); const done = () => console.log(heard);\n"


async def test_the_typescript_client_hears_the_whole_text():
    (code,) = re.findall(r"```typescript\n(.*?)```", (ROOT / "docs/api.md").read_text(), re.DOTALL)
    imports, rest = code.split("\n\n", 1)
    script = HERE / "node_modules" / "snippet.mjs"  # beside the packages that it imports
    script.write_text(f"{imports}\n{BEFORE}{rest}")
    async with process() as running:
        environment = {**os.environ, "MYNAH": await serving(running), "PROTOS": str(ROOT / "protos")}
        pipe = asyncio.subprocess.PIPE
        node = await asyncio.create_subprocess_exec("node", script, stdout=pipe, stderr=pipe, env=environment)
        out, told = await node.communicate()
    assert told == b""
    assert int(out) == 2 * 960 * len("Good morning. How are you?".replace(". ", "."))
