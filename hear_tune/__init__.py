"""Music embeddings with the Tailed U-Net (TUNE).

This module is a HEAR module: `load_model`, `get_scene_embeddings`, `get_timestamp_embeddings`.
`embed_array`, `embed_file` and `embed_folder` embed arrays, files and folders of music.

The public names are those of ``__init__.pyi``; each is imported when it is first used.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
__version__ = version("hear-tune")
