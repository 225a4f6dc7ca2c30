"""What all encodings stand on: the base class, the registry, chains and wrappers."""
