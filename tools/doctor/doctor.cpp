// SPDX-License-Identifier: Apache-2.0
// The checks of the host as a whole; those of its ports are in ports.cpp.
#include "tools/doctor/doctor.hpp"

#include <algorithm>

#include "dataplane/abi/address_text.hpp"
#include "tools/doctor/checks.hpp"

namespace sluice::doctor {

namespace {

std::string page_size(const std::string& directory) {
  // hugepages-2048kB
  const std::size_t dash = directory.find('-');
  const long kib = dash == std::string::npos ? 0 : std::atol(directory.c_str() + dash + 1);
  return kib >= 1 << 20 ? std::to_string(kib >> 20) + " GiB" : std::to_string(kib >> 10) + " MiB";
}

void check_hugepages(const examination& e) {
  const bool off = e.node != nullptr && e.node->dataplane.hugepages == hugepage_mode::off;
  const bool on = e.node != nullptr && e.node->dataplane.hugepages == hugepage_mode::on;
  std::string seen;
  long all = 0;
  long free = 0;
  for (const std::string& kind : e.files.names("/sys/kernel/mm/hugepages")) {
    const std::string at = "/sys/kernel/mm/hugepages/" + kind;
    const long n = e.files.number(at + "/nr_hugepages").value_or(0);
    const long unused = e.files.number(at + "/free_hugepages").value_or(0);
    if (n == 0) continue;
    seen += (seen.empty() ? "" : ", ") + std::to_string(n) + " of " + page_size(kind) + ", " +
            std::to_string(unused) + " free";
    all += n;
    free += unused;
  }
  if (off) return e.add(level::ok, "hugepages", "", "off in node.yaml", "");
  if (all == 0)
    return e.add(on ? level::fail : level::warn, "hugepages", "", "none",
                 "echo 512 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages, or "
                 "hugepagesz=1G hugepages=2 on the kernel's command line; without any it works, "
                 "slower");
  const std::string mounts = e.files.text("/proc/mounts").value_or("");
  if (mounts.find(" hugetlbfs ") == std::string::npos)
    return e.add(on ? level::fail : level::warn, "hugepages", "",
                 seen + "; hugetlbfs is not mounted",
                 "mount -t hugetlbfs hugetlbfs /dev/hugepages");
  if (free == 0)
    return e.add(level::warn, "hugepages", "", seen,
                 "some that are free, unless a data plane that runs has them");
  e.add(level::ok, "hugepages", "", seen, "");
}

void check_isolation(const examination& e) {
  const std::set<unsigned> isolated = e.files.cpus("/sys/devices/system/cpu/isolated");
  const std::set<unsigned> online = e.files.cpus("/sys/devices/system/cpu/online");
  const std::string seen =
      isolated.empty() ? std::string{"no core is isolated"} : "isolated: " + format_cpus(isolated);
  if (e.node == nullptr || e.node->dataplane.idle != idle_mode::busy)
    return e.add(level::ok, "isolated-cores", "",
                 seen + (e.node == nullptr ? "" : "; workers do not poll (idle)"), "");
  const workers_config& workers = e.node->dataplane.workers;
  if (workers.selection != worker_selection::list) {
    if (isolated.empty())
      return e.add(
          level::warn, "isolated-cores", "", seen + ", and workers poll",
          "isolcpus= nohz_full= rcu_nocbs= with the workers' cores on the kernel's command "
          "line, and the same in dataplane.workers; or idle: sleep");
    return e.add(level::ok, "isolated-cores", "", seen, "");
  }
  std::set<unsigned> shared;
  std::set<unsigned> absent;
  for (const unsigned cpu : workers.cpus) {
    if (!online.empty() && !online.contains(cpu)) absent.insert(cpu);
    if (!isolated.contains(cpu)) shared.insert(cpu);
  }
  if (!absent.empty())
    return e.add(level::fail, "isolated-cores", "", "no such cpu: " + format_cpus(absent),
                 "dataplane.workers of " + format_cpus(online));
  if (!shared.empty())
    return e.add(level::warn, "isolated-cores", "",
                 seen + "; workers' cores that are not: " + format_cpus(shared),
                 "isolcpus=" + format_cpus(shared) + " nohz_full=" + format_cpus(shared) +
                     " rcu_nocbs=" + format_cpus(shared) + " on the kernel's command line");
  e.add(level::ok, "isolated-cores", "", seen, "");
}

void check_iommu(const examination& e) {
  const bool there = !e.files.names("/sys/class/iommu").empty() ||
                     !e.files.names("/sys/kernel/iommu_groups").empty();
  const bool needed = e.node != nullptr &&
                      std::any_of(e.node->dataplane.ports.begin(), e.node->dataplane.ports.end(),
                                  [](const port_config& p) { return p.kind == device_kind::pci; });
  if (there) return e.add(level::ok, "iommu", "", "there is one", "");
  const bool unsafe =
      e.files.text("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode").value_or("N") == "Y";
  if (!needed) return e.add(level::ok, "iommu", "", "none, and no port needs it", "");
  if (unsafe)
    return e.add(level::warn, "iommu", "", "none; vfio works without (enable_unsafe_noiommu_mode)",
                 "intel_iommu=on iommu=pt (AMD: iommu=pt) on the kernel's command line: without it "
                 "a device can write everywhere");
  e.add(level::fail, "iommu", "", "none, and a port is a PCI device",
        "intel_iommu=on iommu=pt (AMD: iommu=pt) on the kernel's command line");
}

void check_kernel(const examination& e) {
  const std::string release = e.files.text("/proc/sys/kernel/osrelease").value_or("unknown");
  const int major = std::atoi(release.c_str());
  const std::size_t dot = release.find('.');
  const int minor = dot == std::string::npos ? 0 : std::atoi(release.c_str() + dot + 1);
  if (major != 0 && (major < 5 || (major == 5 && minor < 10)))
    e.add(level::fail, "kernel", "", release, "5.10 or newer, for AF_XDP and BPF as they are used");
  else
    e.add(level::ok, "kernel", "", release, "");
  const auto jit = e.files.number("/proc/sys/net/core/bpf_jit_enable");
  if (jit && *jit == 0)
    e.add(level::warn, "bpf-jit", "", "off", "sysctl -w net.core.bpf_jit_enable=1");
}

void check_clock(const examination& e) {
  std::set<std::string> governors;
  for (const std::string& cpu : e.files.names("/sys/devices/system/cpu"))
    if (const auto governor =
            e.files.text("/sys/devices/system/cpu/" + cpu + "/cpufreq/scaling_governor"))
      governors.insert(*governor);
  if (governors.empty()) return;
  std::string seen;
  for (const std::string& g : governors) seen += (seen.empty() ? "" : ", ") + g;
  if (governors == std::set<std::string>{"performance"})
    return e.add(level::ok, "cpu-frequency", "", seen, "");
  e.add(level::warn, "cpu-frequency", "", seen,
        "performance in scaling_governor of the workers' cores: others wake up slowly");
}

void check_vips(const examination& e) {
  if (e.state == nullptr) return;
  const std::set<ip_address> local = e.files.local_addresses();
  std::set<ip_address> seen;
  for (const model::service& s : e.state->services) {
    if (!seen.insert(s.address).second) continue;
    const std::string vip = format_ip(s.address);
    if (local.contains(s.address))
      e.add(level::ok, "vip", vip, "is on an interface of this host", "");
    else
      e.add(level::ok, "vip", vip,
            "is on no interface of this host: a router sends it here, or nobody", "");
    for (const model::backend& b : s.backends)
      if (local.contains(b.address))
        e.add(level::warn, "backend", format_ip(b.address), "is this host itself, for " + s.name,
              "backends are other hosts: packets to this one do not leave by a port");
  }
}

}  // namespace

std::string_view to_string(level l) noexcept {
  switch (l) {
    case level::ok:
      return "ok";
    case level::warn:
      return "warn";
    case level::fail:
      break;
  }
  return "fail";
}

std::vector<finding> examine(const question& q) {
  std::vector<finding> out;
  const host_files files{q.root};
  const examination e{files, q.node, q.state, out};
  check_kernel(e);
  check_hugepages(e);
  check_iommu(e);
  check_isolation(e);
  check_clock(e);
  check_ports(e);
  check_vips(e);
  return out;
}

}  // namespace sluice::doctor
