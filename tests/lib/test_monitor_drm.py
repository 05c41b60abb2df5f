"""AMD and Intel cards on trees of files as the kernel's documentation has them (the sources stand in lib/monitor): what
is read, what is missing, and what goes away. No such card has been at hand."""

import itertools

import pytest

from lib.monitor.amd import Amd
from lib.monitor.base import Device, Process, Sample
from lib.monitor.drm import Root, size
from lib.monitor.intel import Intel

MIB = 1 << 20
AMD = {
    "device/vendor": "0x1002\n",
    "device/device": "0x744c\n",
    "device/uevent": "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0\n",
    "device/product_name": "Radeon Pro W7900\n",
    "device/unique_id": "8a1c3bf0d4e2\n",
    "device/mem_info_vram_total": f"{48 * 1024 * MIB}\n",
    "device/mem_info_vram_used": f"{900 * MIB}\n",
    "device/gpu_busy_percent": "37\n",
    "device/pp_dpm_sclk": "0: 500Mhz\n1: 1895Mhz *\n2: 2495Mhz\n",
    "device/pp_dpm_mclk": "0: 96Mhz *\n1: 1125Mhz\n",
    "device/hwmon/hwmon3/temp1_label": "edge\n",
    "device/hwmon/hwmon3/temp1_input": "47000\n",
    "device/hwmon/hwmon3/temp2_label": "junction\n",
    "device/hwmon/hwmon3/temp2_input": "58000\n",
    "device/hwmon/hwmon3/power1_average": "61000000\n",
    "device/hwmon/hwmon3/power1_cap": "241000000\n",
    "device/hwmon/hwmon3/pwm1": "51\n",
    "device/hwmon/hwmon3/pwm1_max": "255\n",
    "device/hwmon/hwmon3/temp3_label": "mem\n",
    "device/hwmon/hwmon3/temp3_input": "62000\n",
    "device/max_link_speed": "16.0 GT/s PCIe\n",
    "device/max_link_width": "16\n",
}
UNTOLD = {"energy", "pcie_tx", "pcie_rx", "nvlink_tx", "nvlink_rx"}  # of an AMD card
I915 = {
    "device/vendor": "0x8086\n",
    "device/device": "0x56a0\n",
    "device/uevent": "DRIVER=i915\nPCI_SLOT_NAME=0000:04:00.0\n",
    "gt/gt0/rps_act_freq_mhz": "2050\n",
    "gt/gt0/rc6_residency_ms": "10000\n",
    "device/hwmon/hwmon5/energy1_input": "5000000\n",
    "device/hwmon/hwmon5/power1_max": "190000000\n",
}
XE = {
    "device/vendor": "0x8086\n",
    "device/device": "0xe20b\n",
    "device/uevent": "DRIVER=xe\nPCI_SLOT_NAME=0000:05:00.0\n",
    "device/tile0/gt0/freq0/act_freq": "2400\n",
    "device/tile0/gt0/gtidle/idle_residency_ms": "3000\n",
    "device/hwmon/hwmon6/temp2_input": "52000\n",
}


def card(root, number, files):
    for name, text in files.items():
        path = root / "sys" / "class" / "drm" / f"card{number}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    connector = root / "sys" / "class" / "drm" / f"card{number}-DP-1"
    connector.mkdir(parents=True, exist_ok=True)


def client(root, pid, fd, slot, number, **keys):
    path = root / "proc" / str(pid) / "fdinfo" / str(fd)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["pos:\t0", "drm-driver:\tamdgpu", f"drm-client-id:\t{number}", f"drm-pdev:\t{slot}"]
    path.write_text("\n".join(lines + [f"drm-{k.replace('_', '-')}:\t{v}" for k, v in keys.items()]) + "\n")


def test_an_amd_card(tmp_path):
    card(tmp_path, 0, I915)
    card(tmp_path, 10, AMD)
    client(tmp_path, 7, 3, "0000:03:00.0", 1, memory_vram="2048 KiB", memory_gtt="9 MiB")
    client(tmp_path, 7, 4, "0000:03:00.0", 1, memory_vram="2048 KiB")  # the same client again
    client(tmp_path, 7, 5, "0000:09:00.0", 2, memory_vram="77 MiB")  # of another card
    client(tmp_path, 8, 3, "0000:03:00.0", 3, resident_vram="5 MiB", memory_vram="5 MiB")
    client(tmp_path, 9, 3, "0000:03:00.0", 4, memory_vram="99 MiB")  # of another process
    amd = Amd(Root(tmp_path))
    assert amd.probe()
    assert amd.devices() == [
        Device("amd", 0, "Radeon Pro W7900", "8a1c3bf0d4e2", 48 * 1024, 241.0, bus="0000:03:00.0", link="PCIe 4 x16")
    ]
    found = amd.sample(amd.devices()[0], {7, 8})
    assert found == Sample(37, 900, 7, 47, 61, pytest.approx(20), 1895, 96, hotspot=58, memory_temperature=62)
    assert amd.sample(amd.devices()[0], {12345}).process_memory is None


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("device/gpu_busy_percent", "utilization"),
        ("device/mem_info_vram_used", "memory_used"),
        ("device/hwmon/hwmon3/power1_average", "power"),
        ("device/hwmon/hwmon3/pwm1", "fan"),
        ("device/pp_dpm_sclk", "clock"),
    ],
)
@pytest.mark.parametrize("text", [None, "", "n/a\n"])
def test_what_an_amd_driver_has_not(tmp_path, name, field, text):
    """Older kernels have fewer files, and some answer with an error where a card sleeps."""
    files = {k: v for k, v in AMD.items() if k != name} | ({} if text is None else {name: text})
    card(tmp_path, 0, files)
    client(tmp_path, 1, 3, "0000:03:00.0", 1, memory_vram="1 MiB")
    amd = Amd(Root(tmp_path))
    sample = amd.sample(amd.devices()[0], {1})
    assert {n for n, v in vars(sample).items() if v is None} == UNTOLD | {field}


def test_power_under_its_newer_name_and_temperature_without_labels(tmp_path):
    files = {k: v for k, v in AMD.items() if "label" not in k and "average" not in k}
    card(tmp_path, 0, files | {"device/hwmon/hwmon3/power1_input": "70000000\n"})
    amd = Amd(Root(tmp_path))
    found = amd.sample(amd.devices()[0], set())
    assert (found.power, found.temperature) == (70, 47)


def test_an_intel_card_of_each_driver(tmp_path):
    card(tmp_path, 0, AMD)
    card(tmp_path, 1, I915)
    card(tmp_path, 2, XE)
    client(tmp_path, 7, 3, "0000:04:00.0", 1, resident_local0="30 MiB", resident_system0="4 MiB")
    client(tmp_path, 7, 4, "0000:05:00.0", 2, resident_vram0="11 MiB")
    clock = iter([100.0, 100.5, 102.0, 102.5])
    intel = Intel(Root(tmp_path), clock=lambda: next(clock))
    i915, xe = intel.devices()
    assert i915 == Device("intel", 0, "Intel 0x56a0", "0000:04:00.0", None, 190.0, bus="0000:04:00.0")
    first = intel.sample(i915, {7})
    assert first == Sample(process_memory=30, clock=2050, energy=5)
    assert intel.sample(xe, {7}) == Sample(process_memory=11, temperature=52, clock=2400)
    # Two seconds later: asleep for half a second of them, and 90 joules more.
    card(tmp_path, 1, I915 | {"gt/gt0/rc6_residency_ms": "10500", "device/hwmon/hwmon5/energy1_input": "95000000"})
    card(tmp_path, 2, XE | {"device/tile0/gt0/gtidle/idle_residency_ms": "100"})  # it began anew
    second = intel.sample(i915, {7})
    assert (second.utilization, second.power, second.energy) == (75, 45, 95)
    assert intel.sample(xe, {7}).utilization is None


def test_a_card_without_memory_of_its_own_takes_the_hosts(tmp_path):
    card(tmp_path, 1, I915)
    client(tmp_path, 7, 3, "0000:04:00.0", 1, resident_system0="4 MiB")
    intel = Intel(Root(tmp_path))
    assert intel.sample(intel.devices()[0], {7}).process_memory == 4


def test_a_card_that_has_gone(tmp_path):
    card(tmp_path, 0, AMD)
    card(tmp_path, 1, I915)
    amd, intel = Amd(Root(tmp_path)), Intel(Root(tmp_path))
    devices = amd.devices()[0], intel.devices()[0]
    for number in (0, 1):
        (tmp_path / "sys" / "class" / "drm" / f"card{number}" / "device" / "vendor").unlink()
    assert amd.sample(devices[0], {1}) == intel.sample(devices[1], {1}) == Sample()


def test_a_card_keeps_its_readings_when_one_before_it_goes(tmp_path):
    other = AMD | {"device/uevent": "PCI_SLOT_NAME=0000:0a:00.0\n", "device/gpu_busy_percent": "99\n"}
    card(tmp_path, 0, AMD)
    card(tmp_path, 1, other)
    amd = Amd(Root(tmp_path))
    second = amd.devices()[1]
    (tmp_path / "sys" / "class" / "drm" / "card0" / "device" / "vendor").unlink()
    assert amd.sample(second, set()).utilization == 99


def test_processes_of_a_card(tmp_path):
    """Of every process that may be read; as busy as its busiest engine, from what its counters gain."""
    card(tmp_path, 0, AMD)
    client(tmp_path, 7, 3, "0000:03:00.0", 1, memory_vram="2 MiB", engine_gfx="0 ns", engine_dec="5 ns")
    client(tmp_path, 8, 3, "0000:03:00.0", 2, memory_gtt="4 MiB")
    client(tmp_path, 9, 3, "0000:09:00.0", 3, memory_vram="77 MiB")
    clock = iter([1.0, 3.0])
    amd = Amd(Root(tmp_path), clock=lambda: next(clock))
    [device] = amd.devices()
    assert sorted(amd.processes(device), key=lambda p: p.pid) == [Process(7, 2.0), Process(8)]
    client(tmp_path, 7, 3, "0000:03:00.0", 1, memory_vram="3 MiB", engine_gfx="500000000 ns", engine_dec="7 ns")
    assert Process(7, 3.0, 25.0) in amd.processes(device)
    descriptor = tmp_path / "proc" / "7" / "fd" / "3"
    descriptor.parent.mkdir()
    descriptor.symlink_to("/tmp/a_file")  # no device of DRM: not read
    assert list(Root(tmp_path).clients(7, "0000:03:00.0")) == []


def test_no_card_and_no_tree(tmp_path):
    assert not Amd(Root(tmp_path)).probe()
    assert not Intel(Root(tmp_path / "nowhere")).probe()
    card(tmp_path, 0, {"device/vendor": "0x10de\n"})
    assert not Amd(Root(tmp_path)).probe()


@pytest.mark.parametrize(("value", "want"), [("12", 12), ("3 KiB", 3072), ("2 MiB", 2 * MIB), ("x", 0), ("5 GB", 0)])
def test_sizes(value, want):
    assert size(value) == want


def test_a_fork_has_its_parents_clients(tmp_path):
    """Workers inherit the descriptor: one client is counted once, whoever holds it."""
    card(tmp_path, 0, AMD)
    for pid in (7, 8, 9):
        client(tmp_path, pid, 3, "0000:03:00.0", 1, memory_vram="1000 MiB")
    client(tmp_path, 9, 4, "0000:03:00.0", 2, memory_vram="5 MiB")
    amd = Amd(Root(tmp_path))
    assert amd.sample(amd.devices()[0], {7, 8, 9}).process_memory == 1005


def test_processes_of_a_card_without_memory_of_its_own(tmp_path):
    card(tmp_path, 1, I915)
    client(tmp_path, 7, 3, "0000:04:00.0", 1, resident_local0="0", resident_system0="4 MiB", engine_render="0 ns")
    clock = itertools.count(1.0)
    intel = Intel(Root(tmp_path), clock=lambda: next(clock))
    [device] = intel.devices()
    assert intel.processes(device) == [Process(7, 4.0)]
    client(tmp_path, 7, 3, "0000:04:00.0", 1, resident_system0="4 MiB", engine_render="500000000 ns")
    assert intel.processes(device) == [Process(7, 4.0, 50.0)]
    assert intel.sample(device, {7}).process_memory == 4
