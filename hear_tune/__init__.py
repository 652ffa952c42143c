"""Music embeddings with the Tailed U-Net (TUNE).

This module is a HEAR module: `load_model`, `get_scene_embeddings`, `get_timestamp_embeddings`.
From a tensor one climbs to an array, a file and a folder of music: `embed_array`, `embed_file`,
`embed_folder`.
"""

from importlib.metadata import version

from .audio import AudioError, Remark
from .checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from .clips import ClipEmbeddings
from .config import ConfigError, SampleCNNConfig, TuneConfig
from .embed import FolderReport, embed_array, embed_file, embed_folder
from .files import InUseError
from .hear import UntrainedWarning, get_scene_embeddings, get_timestamp_embeddings, load_model
from .model import EmbeddingModel
from .network import Encoder, build_encoder
from .pretrained import PRETRAINED, Pretrained
from .stores import StoreError
from .streaming import Embedder
from .variants import VARIANTS, Variant, get_variant

__version__ = version("hear-tune")

__all__ = [
    "PRETRAINED",
    "VARIANTS",
    "AudioError",
    "CheckpointError",
    "ClipEmbeddings",
    "ConfigError",
    "Embedder",
    "EmbeddingModel",
    "Encoder",
    "FolderReport",
    "InUseError",
    "Pretrained",
    "Remark",
    "SampleCNNConfig",
    "StoreError",
    "TuneConfig",
    "UntrainedWarning",
    "Variant",
    "__version__",
    "build_encoder",
    "embed_array",
    "embed_file",
    "embed_folder",
    "get_scene_embeddings",
    "get_timestamp_embeddings",
    "get_variant",
    "load_checkpoint",
    "load_model",
    "save_checkpoint",
]
