"""The paper's own numbers, addressed by table."""

# Table 6: test error on CIFAR-10 in percent, by depth; option A, with augmentation
TABLE_6 = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43, 1202: 7.93}
TABLE_6_SPREAD = {110: "6.43 (6.61 ± 0.16, n=5)"}


def table_6(depth: int) -> str:
    """The paper's entry for a residual net of that depth, as it prints it; empty for others."""
    if depth in TABLE_6_SPREAD:
        return TABLE_6_SPREAD[depth]
    return f"{TABLE_6[depth]:.2f}" if depth in TABLE_6 else ""
