"""The gRPC inference service and its client."""
