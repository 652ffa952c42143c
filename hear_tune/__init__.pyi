from .audio.reading import AudioError, Remark
from .checkpoints import CheckpointError
from .checkpoints.hub import Encoder, build_encoder, load_checkpoint, save_checkpoint
from .common.errors import HearTuneError
from .common.files import InUseError
from .embedding.batching import ClipEmbeddings
from .embedding.folder import FolderReport, embed_array, embed_file, embed_folder
from .embedding.model import EmbeddingModel
from .embedding.rows import StoreError
from .embedding.streaming import Embedder
from .hear import UntrainedWarning, get_scene_embeddings, get_timestamp_embeddings, load_model
from .networks.config import ConfigError, SampleCNNConfig, TuneConfig
from .networks.variants import VARIANTS, Variant, get_variant
from .weights import PRETRAINED, Pretrained

__version__: str

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
    "HearTuneError",
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
