"""The Python lines that load an output, by its form. Dataset cards show them and our tests run them."""

from __future__ import annotations

_BY_CARD = """\
The `datasets` library reads this card; it needs the package `torchcodec` for the sound:

```python
from datasets import load_dataset

rows = load_dataset("FOLDER", split="train")
rows[0]
```"""

_FILES = """\
```python
import json
from pathlib import Path

import soundfile

for line in Path("FOLDER/audio/metadata.jsonl").read_text(encoding="utf-8").splitlines():
    row = json.loads(line)
    samples, rate = soundfile.read(f"FOLDER/audio/{row['file_name']}", dtype="int16")
```

`metadata.csv` has the names and texts in LJSpeech's form, `manifest.parquet` everything that is known of each row
(sentences of books, where the job had any, have a `chapter` from 1 on, and their audio in `shards`):

```python
import pyarrow.dataset
import soundfile

rows = pyarrow.dataset.dataset("FOLDER/manifest.parquet")
spoken = (pyarrow.dataset.field("status") == "ok") & (pyarrow.dataset.field("chapter") == 0)
for row in rows.to_table(filter=spoken).to_pylist():
    samples, rate = soundfile.read(f"FOLDER/{row['audio']}", dtype="int16")
```"""

_PARQUET = """\
The shards hold rows that were set aside too, with the `status` "failed" and the reason; leave those out:

```python
from io import BytesIO

import soundfile
from datasets import Audio, load_dataset

rows = load_dataset("parquet", data_files="FOLDER/shards/*.parquet", split="train", filters=[("status", "==", "ok")])
for row in rows.cast_column("flac", Audio(decode=False)):
    samples, rate = soundfile.read(BytesIO(row["flac"]["bytes"]), dtype="int16")
```

or without that library:

```python
from io import BytesIO

import pyarrow.dataset
import soundfile

rows = pyarrow.dataset.dataset("FOLDER/shards", format="parquet")
for batch in rows.to_batches(filter=pyarrow.dataset.field("status") == "ok"):
    for row in batch.to_pylist():
        samples, rate = soundfile.read(BytesIO(row["flac"]), dtype="int16")
```"""

_WEBDATASET = """\
```python
import json
from glob import glob
from io import BytesIO

import soundfile
import webdataset

for sample in webdataset.WebDataset(sorted(glob("FOLDER/webdataset/*.tar")), shardshuffle=False):
    row = json.loads(sample["json"])
    samples, rate = soundfile.read(BytesIO(sample["flac"]), dtype="int16")
```

`manifest.parquet` lists every row, those that were set aside too."""

_HOW = {"files": _FILES, "parquet": _PARQUET, "webdataset": _WEBDATASET}

SNIPPETS = {form: f"{how}\n\n{_BY_CARD}" for form, how in _HOW.items()}
"""By form of the output, in Markdown; FOLDER is where it lies."""
