"""The .onnx in JavaScript's libraries, by the samples of docs/libraries.md as they are written there.

`make transformers-js` brings transformers.js for Node, with the few packages that it needs to classify a picture. Every
archive is pinned by its SHA-512 and none of their scripts is run. Of onnxruntime-node's archive, 114 MB, what is for
other systems is left out.
"""

import base64
import io
import json
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from bigvit_edge.app.packages import Package, download
from bigvit_edge.runtime.libraries import find_tool
from tests.app.chromium import Tab
from tests.native import ROOT, skip

FOLDER = ROOT / "build/transformers_js"
PINNED = """
    @huggingface/transformers     4.3.2  V3+dqf3iWlRYJ9I9GreM3zGQd0lAXnnoPeddmkOQYWAEE4l/+Fi6p7tx/qVUJlKQgLXGim2W76rTOzz+eC0i7g==
    onnxruntime-node              1.30.0 twhs1C2C/BFkz1yc5OY0KIU2GUq6DURO7hD4bx5Q2Qy3nAMJwRXW8xU3NVczE29VA9lolLOYepoD8fjTGOfIqw==
    onnxruntime-common            1.30.0 7fdVWjAID1dVhH/G8qK3APARunV4VkBFoCQAP7qp4Wkab0mrorvmc+sqiT+mKXOzDqdjN5j+/Z9nb4gzNPWcyA==
    sharp                         0.35.5 Ywn4OnzGukp7CDMrp08RQ50YKmuwG47brZgIVPTvBaaAfQlRlygrRqSrxdCiL9M+LlzLBiJ68IR1QqvzHyjC7g==
    @img/colour                   1.1.0  Td76q7j57o/tLVdgS746cYARfSyxk8iEfRxewL9h4OMzYhbW4TAcppl0mT4eyqXddh6L/jwoM75mo7ixa/pCeQ==
    @img/sharp-linux-x64          0.35.5 SxFtLTeJInhAA9Q836kux2vZNeOBQEx658qvbboZScr0wIARym3IcGmW7KpVD5sbVg0Ojy+udFQdayYIZyoNog==
    @img/sharp-libvips-linux-x64  1.3.4  GJ//SSXbnwSDes02umB3nDJLFcQzw8a18V8fyhqr6tV515tOEMdImjjxj1AoafMRz56F3PHgftnj1QEKSU1zkw==
    detect-libc                   2.1.2  Btj2BOOO83o3WyH59e8MgXsxEQVcarkUOpEYrubB0urwnN10yQ364rsiByU11nZlqWYZm05i/of7io4mzihBtQ==
    semver                        7.8.6  9lpSSU4Mly3mrtruwLs1eLK6+gzbzqeBFwRNjIjE+9LuDpWdYctrQlQ3ej1Ilgi7gknpsTRnPoLP8DpCHqHIJw==
"""  # noqa: E501
ASK = """
const answers = [];
for (const path of PICTURES) answers.push(await classify(path, { top_k: null }));
console.log(JSON.stringify(answers));
"""
AT_ONCE = 50  # pictures that are handed to a page
IMAGES = {  # what a page has of a picture's bytes; an element is of another size on the screen
    "ImageBitmap": "const image = bitmap;",
    "<img>": """const image = new Image();
        image.src = URL.createObjectURL(blob);
        await image.decode();
        image.style.cssText = "width: 7px; height: 9px";
        document.body.append(image);""",
    "<canvas>": """const image = document.createElement("canvas");
        [image.width, image.height] = [bitmap.width, bitmap.height];
        image.getContext("2d").drawImage(bitmap, 0, 0);
        image.style.cssText = "width: 7px; height: 9px";
        document.body.append(image);""",
    "<video>": """const [screen, image] = ["canvas", "video"].map((name) => document.createElement(name));
        [screen.width, screen.height] = [bitmap.width, bitmap.height];
        const drawn = screen.getContext("2d");
        image.srcObject = screen.captureStream();
        drawn.drawImage(bitmap, 0, 0);
        [image.muted, image.style.cssText] = [true, "width: 7px; height: 9px"];
        document.body.append(image);
        await image.play();""",
}
TAKEN = {  # of those of which not all is
    "@huggingface/transformers": ("package.json", "dist/transformers.node.mjs"),
    "onnxruntime-node": ("package.json", "dist/*.js", "bin/napi-v6/linux/x64/*"),
}


def write_node_modules(folder: Path) -> None:
    """Write a folder's node_modules, as npm would."""
    npm = find_tool("npm", "apt-get install npm", "which brings transformers.js")
    shutil.rmtree(folder / "node_modules", ignore_errors=True)
    for line in PINNED.strip().splitlines():
        name, version, sha512 = line.split()
        archive = download(Package(name, version, sha512, {}), npm)
        with tarfile.open(fileobj=io.BytesIO(archive)) as held:
            for member in held:
                inside = member.name.partition("/")[2]
                if member.isfile() and any(fnmatch(inside, pattern) for pattern in TAKEN.get(name, ("*",))):
                    path = folder / "node_modules" / name / inside
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(held.extractfile(member).read())  # type: ignore[union-attr]


def read_sample(word: str) -> list[str]:
    """Read the lines of the one sample in docs/libraries.md that has a word in it."""
    text = (ROOT / "docs/libraries.md").read_text(encoding="utf-8")
    (found,) = (sample for sample in re.findall(r"^```\w+\n(.*?)^```$", text, re.M | re.S) if word in sample)
    return str(found).splitlines()


def fill_in(lines: Sequence[str], **words: str) -> str:
    """Put other words in place of some in a sample, each of which must be there."""
    script = "\n".join(lines)
    for old, new in words.items():
        assert old in script, old
        script = script.replace(old, new)
    return script


def write_script(file: Path, takes_pixels: bool) -> str:
    """Write the page's samples for transformers.js, which end with `classify`, for a file of a bundle."""
    *lines, last = read_sample("pipeline(")
    assert last.startswith("console.log(await classify(")
    words = {"dist/": f"{file.parent.parent}/", '"tensor"': json.dumps(file.parent.name), "blvit_demo_int8": file.stem}
    more = "\n".join(read_sample("classify.processor")) if takes_pixels else ""
    return f"{fill_in(lines, **words)}\n{more}\n"


def ask_pipeline(file: Path, takes_pixels: bool, pictures: Sequence[Path], folder: Path) -> list[dict[str, float]]:
    """Classify pictures by transformers.js's pipeline, in an empty folder.

    Of each the probabilities by their labels, the most probable first.
    """
    script = write_script(file, takes_pixels)
    told = json.loads(run_node(script + ASK.replace("PICTURES", json.dumps([*map(str, pictures)])), folder))
    return [{one["label"]: one["score"] for one in answer} for answer in told]


def run_node(script: str, folder: Path) -> str:
    """Run a module of JavaScript in an empty folder; give what it prints.

    It finds transformers.js as if npm had installed it there. Skips the test where that is not.
    """
    node = shutil.which("node")
    if node is None:
        skip("no node", "apt-get install npm")
    if platform.machine() != "x86_64":
        skip(f"transformers.js was pinned for x86_64, this is {platform.machine()}", "use such a machine")
    if not (FOLDER / ".ready").is_file():
        skip("no transformers.js", "make transformers-js")
    (folder / "node_modules").symlink_to(FOLDER / "node_modules")
    (folder / "main.mjs").write_text(script)
    done = subprocess.run([str(node), "main.mjs"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask_canvas(
    tab: Tab, model: str, size: int, pictures: Sequence[Path], image: str = "ImageBitmap"
) -> list[list[float]]:
    """Classify pictures by the page's sample for onnxruntime-web, in a page of `app web`; the logits of each.

    model: its address there. image: what the page has of a picture, one of IMAGES.
    """
    first, *lines = read_sample("new ort.Tensor(")
    assert first == 'import * as ort from "onnxruntime-web/wasm";'
    start = next(i for i, line in enumerate(lines) if line.startswith("const session")) + 1
    words = {"= [64,": f"= [{size},"}
    script = f"""(async (pictures) => {{
        const ort = await import("./npm/ort.wasm.min.mjs");
        {fill_in(lines[:start], **{"dist/web/blvit_demo_int8.onnx": model})}
        const answers = [];
        for (const picture of pictures) {{
          const bytes = Uint8Array.from(atob(picture), (letter) => letter.charCodeAt(0));
          const blob = new Blob([bytes]);
          const bitmap = await createImageBitmap(blob);
          {IMAGES[image]}
          {fill_in(lines[start:], **words)}
          answers.push(Array.from(logits.data));
          image.remove?.();
        }}
        return answers;
    }})"""
    answers: list[list[float]] = []
    for i in range(0, len(pictures), AT_ONCE):
        given = [base64.b64encode(path.read_bytes()).decode() for path in pictures[i : i + AT_ONCE]]
        answers += tab.evaluate(f"{script}({json.dumps(given)})")
    return answers


if __name__ == "__main__":
    write_node_modules(Path(sys.argv[1]))
