"""The live path: LoRA with heads, and soft prompts, trained by passes through the backbone."""
