"""Runs on disk: records of arrays, the manifest of where they came from, all or nothing.

One trap: a path or a name read from a manifest is text from a stranger; nothing here follows one.
"""

from meanfield.store.checkpoints import Checkpoints as Checkpoints
from meanfield.store.files import checksum as checksum
from meanfield.store.files import replacing as replacing
from meanfield.store.places import vacant as vacant
from meanfield.store.provenance import plain as plain
from meanfield.store.runs import Draft as Draft
from meanfield.store.runs import Run as Run
from meanfield.store.runs import load_run as load_run
from meanfield.store.runs import open_run as open_run
from meanfield.store.runs import save_record as save_record
