"""A page on which one draws from a study's networks and watches them denoise; only `page` imports gradio."""
