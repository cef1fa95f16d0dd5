"""Generated from proto/nerve/v1 by `make proto`, never edited; but for this file.

The generated code keeps its descriptors in a pool of its own, so that it can live beside other code
that was generated from the same file.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
