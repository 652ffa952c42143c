"""TUNE and CLMR as upstreams of s3prl 0.4.18.

>>> from hear_tune.upstream import register
>>> register()
>>> from s3prl.nn import Featurizer, S3PRLUpstream
>>> upstream = S3PRLUpstream("tune")
"""

from .expert import UpstreamExpert
from .registration import register, register_problems

__all__ = ["UpstreamExpert", "register", "register_problems"]
