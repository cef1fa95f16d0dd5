"""Generated from proto/ by `make proto`, never edited; but for this file.

The generated code keeps its descriptors in a pool of its own: a process can hold only one file with
`inference.ModelInferRequest` in the default pool, and that may be tritonclient's.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
