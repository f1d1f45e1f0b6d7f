"""Tampers with logs of training as a liar would, by the documented format alone."""

import hashlib
import json

import numpy as np
from safetensors.numpy import load_file, save_file


def digest(value):
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def reseal(folder, spoil=lambda manifest: None):
    """Spoils the manifest, and makes all digests and the chain right again."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    batches = (folder / "batches.npy").read_bytes()
    manifest["batches"]["sha256"] = hashlib.sha256(batches).hexdigest()
    spoil(manifest)
    checkpoints = manifest.pop("checkpoints")
    link = digest(manifest)
    for entry in checkpoints:
        file = folder / f"state-{entry['step']:010d}.safetensors"
        if file.is_file() and file.stat().st_size < 10**6:
            entry["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        named = {name: entry[name] for name in ("step", "file", "sha256")}
        link = entry["link"] = digest({"previous": link, **named})
    path.write_text(json.dumps({**manifest, "checkpoints": checkpoints}))


def edit(folder, step, ending, function):
    """Changes one array of a checkpoint, named by the end of its path; the chain is then wrong."""
    path = folder / f"state-{step:010d}.safetensors"
    arrays = {name: array.copy() for name, array in load_file(path).items()}
    (name,) = (name for name in arrays if name.endswith(ending))
    arrays[name] = np.asarray(function(arrays[name]))
    save_file(arrays, path)
