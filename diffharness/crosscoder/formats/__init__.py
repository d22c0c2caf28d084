"""How other projects write their crosscoders: one module a format, found by what a file holds."""

from diffharness.crosscoder.formats.concatenated import Concatenated
from diffharness.crosscoder.formats.crosscode import Crosscode
from diffharness.crosscoder.formats.dedicated import Dedicated
from diffharness.crosscoder.formats.dictionary_learning import DictionaryLearning
from diffharness.crosscoder.formats.files import Files, read_files
from diffharness.crosscoder.formats.heterogeneous import Heterogeneous
from diffharness.crosscoder.formats.llamascopium import Llamascopium
from diffharness.crosscoder.formats.nanda import Nanda
from diffharness.crosscoder.formats.registry import Format, Options, Registry

FORMATS = Registry(
    DictionaryLearning(),
    Nanda(),
    Dedicated(),
    Crosscode(),
    Llamascopium(),
    Heterogeneous(),
    Concatenated(),
)

__all__ = ["FORMATS", "Files", "Format", "Options", "Registry", "read_files"]
