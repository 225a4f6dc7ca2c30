"""Pictures of the encodings themselves: what any of them says about distance, and the classic figures."""
