"""JavaScript's clients of OpenAI's speech API, from npm: OpenAI's own in Node and in Chromium, and the AI SDK."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deploy.keys import add_key, new_key
from deploy.settings import Settings, read_aliases, served_voices
from flowtts_core.voice.card import FLOW_VOICE
from tests.deploy.test_page import CHROMIUM, FLAGS, RATE, SlowSpeaker, serving, spoken, sync_api

pytestmark = pytest.mark.slow
PACKAGES = ("openai@6.49.0", "ai@6.0.326", "@ai-sdk/openai@3.0.141")
TEXT = "one two three four five six seven eight"
SPEAK = """
async function speak(OpenAI, baseURL, apiKey) {
  const client = new OpenAI({ baseURL, apiKey, dangerouslyAllowBrowser: true, maxRetries: 0 });
  const asked = { model: "tts-1", voice: "alloy", input: TEXT };
  const whole = await (await client.audio.speech.create({ ...asked, response_format: "wav" })).arrayBuffer();
  const streamed = await client.audio.speech.create({ ...asked, model: "gpt-4o-mini-tts", response_format: "pcm", speed: null });
  let pieces = 0, bytes = 0;
  for (const reader = streamed.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    pieces++; bytes += value.length;
  }
  const models = (await client.models.list()).data.map((model) => model.id);
  const missing = await client.models.retrieve("whisper-1").catch((error) => [error.status, error.code]);
  const wrong = new OpenAI({ baseURL, apiKey: "wrong", dangerouslyAllowBrowser: true, maxRetries: 0 });
  const refused = await wrong.models.list().catch((error) => [error.status, error.code]);
  return { whole: whole.byteLength, pieces, bytes, models, missing, refused };
}
""".replace("TEXT", json.dumps(TEXT))


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `node_modules` has the packages."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    folder = tmp_path_factory.mktemp("npm")
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), *PACKAGES],
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"npm install: {done.stderr[-300:]}")
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, str, SlowSpeaker]]:
    """The address of the API, a key, and the speaker behind it."""
    speaker, voices = SlowSpeaker(), served_voices([FLOW_VOICE])
    secret, key = new_key("script")
    add_key(tmp_path / "keys", key)
    settings = Settings(
        voices,
        aliases=read_aliases([f"house={FLOW_VOICE}"], voices),
        keys=str(tmp_path / "keys"),
        origins=("*",),
        cache_bytes=0,
    )
    with serving(speaker, settings) as url:
        yield f"{url}v1", secret, speaker


def node(folder: Path, script: str) -> Any:
    (folder / "client.mjs").write_text(script, encoding="utf-8")
    done = subprocess.run(["node", "client.mjs"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(heard: dict[str, Any], speaker: SlowSpeaker) -> None:
    samples = len(spoken(speaker.jobs[0])[0])
    assert heard["whole"] == 44 + 2 * samples
    assert heard["pieces"] > 1
    assert heard["bytes"] == pytest.approx(2 * samples * 24_000 / RATE, abs=4)
    assert {"tts-1", "house"} <= set(heard["models"])
    assert heard["missing"] == [404, "model_not_found"]
    assert heard["refused"] == [401, "invalid_api_key"]


def test_openais_client_in_node(modules: Path, server: tuple[str, str, SlowSpeaker]) -> None:
    url, key, speaker = server
    asked = f"console.log(JSON.stringify(await speak(OpenAI, {json.dumps(url)}, {json.dumps(key)})));"
    check(node(modules, f'import OpenAI from "openai";\n{SPEAK}\n{asked}'), speaker)


def test_openais_client_in_a_browser(modules: Path, server: tuple[str, str, SlowSpeaker]) -> None:
    """From a page of another origin, so that the browser asks for each header that the client sends."""
    url, key, speaker = server
    (modules / "page.html").write_text("<!doctype html><title>client</title>")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(modules))
    pages = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    try:
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page()
            page.goto(f"http://localhost:{pages.server_port}/page.html")
            module = 'import("/node_modules/openai/index.mjs")'
            script = f"async ([url, key]) => {{ {SPEAK} return speak((await {module}).default, url, key); }}"
            check(page.evaluate(script, [url, key]), speaker)
            browser.close()
    finally:
        pages.shutdown()


def test_the_ai_sdk(modules: Path, server: tuple[str, str, SlowSpeaker]) -> None:
    """It takes answers whole."""
    url, key, speaker = server
    script = f"""
    import {{ experimental_generateSpeech as generate }} from "ai";
    import {{ createOpenAI }} from "@ai-sdk/openai";
    const openai = createOpenAI({{ baseURL: {json.dumps(url)}, apiKey: {json.dumps(key)} }});
    const heard = [];
    for (const [model, voice, outputFormat] of [["tts-1", "alloy", "wav"], ["house", "nova", "mp3"]]) {{
      const asked = {{ voice, outputFormat, text: {json.dumps(TEXT)}, maxRetries: 0 }};
      const {{ audio }} = await generate({{ model: openai.speech(model), ...asked }});
      heard.push([audio.mediaType, audio.uint8Array.length]);
    }}
    console.log(JSON.stringify(heard));
    """
    [wav, mp3] = node(modules, script)
    assert wav == ["audio/wav", 44 + 2 * len(spoken(speaker.jobs[0])[0])]
    assert mp3[0] == "audio/mpeg"
    assert [job.text for job in speaker.jobs] == [TEXT, TEXT]
