"""The page's modules in node, beside the Python that they are held to."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.native import ROOT, skip

PAGE = ROOT / "bigvit_edge/app/page"
DRIVER = """
import {{ readFileSync }} from "node:fs";
import * as module from "./{module}";
const answer = async (words) => {{
  try {{
    return {{ value: await ({function})(module, words) }};
  }} catch (error) {{
    return {{ error: error.message }};
  }}
}};
const cases = JSON.parse(readFileSync(0, "utf8"));
const answers = [];
for (const words of cases) answers.push(await answer(words));
console.log(JSON.stringify(answers));
"""


def run_module(folder: Path, module: str, function: str, cases: list[Any]) -> list[dict[str, Any]]:
    """Ask a function of JavaScript, (module, case) => value or its promise, of each case.

    Returns {"value": ...} or {"error": what it threw} of each. folder: an empty one.
    """
    node = shutil.which("node")
    if node is None:
        skip("no node", "apt-get install npm")
    for file in PAGE.glob("*.js"):
        shutil.copy(file, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "driver.js").write_text(DRIVER.format(module=module, function=function))
    done = subprocess.run(
        [str(node), "driver.js"], cwd=folder, input=json.dumps(cases), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert isinstance(answers, list)
    assert len(answers) == len(cases)
    return answers
