"""Networks: `(image_shape (C, H, W), steps T, *, options)`, called as `(x_t (B, C, H, W), t (B,) in 1..T)`."""
