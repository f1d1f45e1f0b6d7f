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
    for name in ("batches", "examples"):
        content = (folder / f"{name}.npy").read_bytes()
        manifest[name]["sha256"] = hashlib.sha256(content).hexdigest()
    every, steps = manifest["every"], manifest["steps"]
    for index in range(len(manifest["checkpoints"])):
        file = folder / f"state-{min(index * every, steps):010d}.safetensors"
        if file.is_file() and file.stat().st_size < 10**6:
            manifest["checkpoints"][index] = hashlib.sha256(file.read_bytes()).hexdigest()
    spoil(manifest)
    header = {k: v for k, v in manifest.items() if k not in ("checkpoints", "head")}
    link = digest(header)
    for index, sha256 in enumerate(manifest["checkpoints"]):
        step = min(index * manifest["every"], manifest["steps"])
        entry = {"step": step, "file": f"state-{step:010d}.safetensors", "sha256": sha256}
        link = digest({"previous": link, **entry})
    path.write_text(json.dumps({**manifest, "head": link}))


def name_start(folder):
    """Makes the manifest name the first checkpoint as its start; the chain is then wrong."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["start"]["sha256"] = start_digest(folder)
    path.write_text(json.dumps(manifest))


def start_digest(folder):
    """Returns the digest of the first checkpoint's variables, as documented."""
    arrays = load_file(folder / "state-0000000000.safetensors")
    prefix = "state/variables/"
    lines = []
    for name in sorted(name for name in arrays if name.startswith(prefix)):
        array = arrays[name]
        one = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode() + array.tobytes())
        lines.append(f"{name.removeprefix(prefix)} {one.hexdigest()}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def edit(folder, step, ending, function):
    """Changes one array of a checkpoint, named by the end of its path; the chain is then wrong."""
    path = folder / f"state-{step:010d}.safetensors"
    arrays = {name: array.copy() for name, array in load_file(path).items()}
    (name,) = (name for name in arrays if name.endswith(ending))
    arrays[name] = np.asarray(function(arrays[name]))
    save_file(arrays, path)
