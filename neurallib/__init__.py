"""neurallib: a differentiable computer inside a LLaMA."""
