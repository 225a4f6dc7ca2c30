"""What a model or an encoding is, seen without scoring it: sizes, profiles, attention weights."""
