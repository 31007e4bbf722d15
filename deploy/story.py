"""Draws a run as one SVG: loss over time, world size, marks for the kill, the repair and the join."""

WIDTH, HEIGHT = 900, 420
LEFT, RIGHT, TOP = 60, 20, 40
LOSS_BOTTOM, WORLD_TOP, WORLD_BOTTOM = 290, 320, 385
INK, GRID, LOSS, WORLD = "#24292f", "#d8dee4", "#0969da", "#8250df"
MARKS = (("killed", "SIGKILL", "#cf222e"), ("recovered", "next step", "#1a7f37"),
         ("joined", "newcomer trains", "#9a6700"))


def polyline(points, colour, width):
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def text(x, y, words, size=12, anchor="start", colour=INK):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
            f'fill="{colour}">{words}</text>')


def line(x1, y1, x2, y2, colour=GRID, extra=""):
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke="{colour}" {extra}/>')


def draw(path, steps, happened):
    """steps: the step events of one survivor; happened: seconds since the epoch by name."""
    start = steps[0]["time_us"] / 1e6
    end = max(steps[-1]["time_us"] / 1e6 - start, 1e-6)
    top_loss = max(e["loss"] for e in steps)
    top_world = max(e["world"] for e in steps)

    def x(seconds):
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / end

    def y_loss(loss):
        return LOSS_BOTTOM - (LOSS_BOTTOM - TOP) * loss / top_loss

    def y_world(world):
        return WORLD_BOTTOM - (WORLD_BOTTOM - WORLD_TOP) * world / top_world

    parts = [text(LEFT, 22, "Muster: loss over time; one worker killed, one joined", 15)]
    for i in range(5):
        loss = top_loss * i / 4
        parts += [line(LEFT, y_loss(loss), WIDTH - RIGHT, y_loss(loss)),
                  text(LEFT - 6, y_loss(loss) + 4, f"{loss:.2f}", 11, "end")]
    for i in range(6):
        parts.append(text(x(end * i / 5), HEIGHT - 12, f"{end * i / 5:.1f} s", 11, "middle"))
    times = [e["time_us"] / 1e6 - start for e in steps]
    parts.append(polyline([(x(t), y_loss(e["loss"])) for t, e in zip(times, steps)], LOSS, 1.2))
    world = []
    for t, e in zip(times, steps):
        if world and world[-1][1] != y_world(e["world"]):
            world.append((x(t), world[-1][1]))
        world.append((x(t), y_world(e["world"])))
    parts += [polyline(world, WORLD, 2), text(LEFT - 6, WORLD_TOP + 4, f"{top_world}", 11, "end"),
              text(LEFT + 4, WORLD_TOP - 8, "workers", 11, colour=WORLD),
              text(LEFT + 4, TOP - 4, "loss", 11, colour=LOSS)]
    for row, (name, label, colour) in enumerate(MARKS):
        at = x(happened[name] - start)
        parts += [line(at, TOP, at, WORLD_BOTTOM, colour, 'stroke-dasharray="4 3"'),
                  text(at + 4, TOP + 14 + 15 * row, label, 11, colour=colour)]
    with open(path, "w") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
                f'font-family="sans-serif"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n')
        f.write("\n".join(parts) + "\n</svg>\n")
