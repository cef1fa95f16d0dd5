"""gRPC by grpc.aio: one servicer a package of proto/, and what they share."""
