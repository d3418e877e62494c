// SPDX-License-Identifier: Apache-2.0
// The checks over trees of /sys and /proc that are made here: hosts as they should be, and with
// one thing wrong each.
#include "tools/doctor/doctor.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "controlplane/config/config.hpp"
#include "tools/doctor/host_files.hpp"

namespace sluice::doctor {
namespace {

namespace fs = std::filesystem;

constexpr const char* node_text = R"(node: {name: edge1}
dataplane:
  workers: "2-3"
  ports:
    - {name: up0, device: "af_xdp:eth1"}
    - {name: up1, device: "0000:03:00.0", twin: false}
    - {name: up2, device: "net_null0"}
  encap-source: {ipv4: 192.0.2.10}
)";
constexpr const char* services_text = R"(services:
  - {name: web, address: 198.51.100.10, port: 80, forward: ipip, backends: [{address: 10.0.1.11}]}
)";

class doctor_test : public ::testing::Test {
 protected:
  doctor_test() {
    std::string pattern = (fs::temp_directory_path() / "sluice-doctor-XXXXXX").string();
    root = ::mkdtemp(pattern.data());
    put("proc/sys/kernel/osrelease", "6.1.0-18-amd64");
    put("proc/mounts", "hugetlbfs /dev/hugepages hugetlbfs rw,pagesize=2M 0 0");
    put("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "512");
    put("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "500");
    put("sys/kernel/iommu_groups/7/type", "DMA");
    put("sys/devices/system/cpu/isolated", "2-3,6-7");
    put("sys/devices/system/cpu/online", "0-7");
    put("sys/devices/system/node/online", "0-1");
    put("sys/devices/system/node/node0/cpulist", "0-3");
    put("sys/devices/system/node/node0/distance", "10 21");
    put("sys/devices/system/node/node1/cpulist", "4-7");
    put("sys/devices/system/node/node1/distance", "21 10");
    put("sys/class/net/eth1/operstate", "up");
    put("sys/class/net/eth1/mtu", "1600");
    put("sys/class/net/eth1/queues/rx-0/rps_cpus", "0");
    put("sys/class/net/eth1/queues/rx-1/rps_cpus", "0");
    put("sys/class/net/eth1/device/numa_node", "0");
    link("sys/class/net/eth1/device/driver", "../../bus/pci/drivers/ice");
    put("sys/bus/pci/devices/0000:03:00.0/numa_node", "0");
    link("sys/bus/pci/devices/0000:03:00.0/driver", "../../drivers/vfio-pci");
    link("sys/bus/pci/devices/0000:03:00.0/iommu_group", "../../kernel/iommu_groups/7");
    put("proc/sys/net/ipv4/conf/all/rp_filter", "0");
    put("proc/sys/net/ipv4/conf/eth1/rp_filter", "2");
    put("proc/net/fib_trie",
        "Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 198.51.100.10\n        /32 host LOCAL\n"
        "     |-- 198.51.100.11\n        /32 link UNICAST\n");
    put("proc/net/if_inet6", "20010db8000f00000000000000000010 01 80 00 80       lo\n");
  }
  ~doctor_test() override { fs::remove_all(root); }

  void put(const std::string& path, const std::string& text) {
    fs::create_directories((root / path).parent_path());
    std::ofstream{root / path} << text << "\n";
  }
  void link(const std::string& path, const std::string& target) {
    fs::create_directories((root / path).parent_path());
    fs::remove(root / path);
    fs::create_symlink(target, root / path);
  }
  std::vector<finding> look(const std::string& node = node_text,
                            const std::string& services = services_text) {
    const auto n = parse_node_text(node, "node.yaml");
    EXPECT_TRUE(n) << to_string(n.error());
    const auto s = config::parse_services(services, "services.yaml", {});
    EXPECT_TRUE(s) << to_string(s.error());
    return examine({root.string(), &*n, &*s});
  }
  // worst() is what a check says of a subject, the worst of it.
  static finding worst(const std::vector<finding>& all, const std::string& check,
                       const std::string& subject = "") {
    finding out{level::ok, "none", "", "there is no such check", ""};
    for (const finding& f : all)
      if (f.check == check && f.subject == subject && (out.check == "none" || f.level > out.level))
        out = f;
    return out;
  }
  fs::path root;
};

TEST_F(doctor_test, a_host_as_it_should_be) {
  const auto all = look();
  for (const finding& f : all) {
    EXPECT_EQ(f.level, level::ok) << f.check << " " << f.subject << ": " << f.seen;
    EXPECT_TRUE(f.right.empty()) << f.right;
  }
  for (const char* check : {"kernel", "hugepages", "iommu", "isolated-cores"})
    EXPECT_EQ(worst(all, check).check, check);
  for (const char* check : {"link", "driver", "rss", "numa", "mtu", "rp_filter"})
    EXPECT_EQ(worst(all, check, "up0").check, check);
  EXPECT_EQ(worst(all, "driver", "up1").seen, "vfio-pci");
  EXPECT_EQ(worst(all, "driver", "up2").seen, "net_null0");
  EXPECT_EQ(worst(all, "hugepages").seen, "512 of 2 MiB, 500 free");
  EXPECT_EQ(worst(all, "vip", "198.51.100.10").seen, "is on an interface of this host");
}

TEST_F(doctor_test, hugepages) {
  put("proc/mounts", "none / ext4 rw 0 0");
  EXPECT_EQ(worst(look(), "hugepages").level, level::warn);
  put("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0");
  EXPECT_EQ(worst(look(), "hugepages").level, level::warn);
  const std::string text = node_text;
  EXPECT_EQ(worst(look(text + "  hugepages: \"on\"\n"), "hugepages").level, level::fail);
  EXPECT_EQ(worst(look(text + "  hugepages: \"off\"\n"), "hugepages").level, level::ok);
}

TEST_F(doctor_test, iommu) {
  fs::remove_all(root / "sys/kernel/iommu_groups");
  EXPECT_EQ(worst(look(), "iommu").level, level::fail);
  put("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y");
  EXPECT_EQ(worst(look(), "iommu").level, level::warn);
  fs::remove(root / "sys/bus/pci/devices/0000:03:00.0/iommu_group");
  EXPECT_EQ(worst(look(), "iommu", "up1").level, level::warn);
}

TEST_F(doctor_test, cores) {
  put("sys/devices/system/cpu/isolated", "3");
  finding f = worst(look(), "isolated-cores");
  EXPECT_EQ(f.level, level::warn);
  EXPECT_NE(f.right.find("isolcpus=2"), std::string::npos) << f.right;
  const std::string text = node_text;
  EXPECT_EQ(worst(look(text + "  idle: sleep\n"), "isolated-cores").level, level::ok);
  put("sys/devices/system/cpu/online", "0-2");
  EXPECT_EQ(worst(look(), "isolated-cores").level, level::fail);
}

TEST_F(doctor_test, numa) {
  put("sys/class/net/eth1/device/numa_node", "1");
  const finding f = worst(look(), "numa", "up0");
  EXPECT_EQ(f.level, level::warn);
  EXPECT_NE(f.seen.find("distance 21"), std::string::npos) << f.seen;
  EXPECT_NE(f.right.find("cpus 4-7"), std::string::npos) << f.right;
  EXPECT_EQ(worst(look(), "numa", "up1").level, level::ok);
  put("sys/class/net/eth1/device/numa_node", "-1");
  EXPECT_EQ(worst(look(), "numa", "up0").level, level::warn);
  put("sys/devices/system/node/online", "0");
  EXPECT_EQ(worst(look(), "numa", "up0").level, level::ok);
}

TEST_F(doctor_test, drivers_links_and_queues) {
  link("sys/class/net/eth1/device/driver", "../../bus/pci/drivers/e1000e");
  put("sys/class/net/eth1/operstate", "down");
  fs::remove_all(root / "sys/class/net/eth1/queues/rx-1");
  auto all = look();
  EXPECT_EQ(worst(all, "driver", "up0").level, level::warn);
  EXPECT_EQ(worst(all, "link", "up0").level, level::fail);
  EXPECT_EQ(worst(all, "rss", "up0").level, level::warn);
  EXPECT_EQ(worst(all, "rss", "up0").seen, "1 receive queue for 2 workers");
  link("sys/bus/pci/devices/0000:03:00.0/driver", "../../drivers/ixgbe");
  fs::remove_all(root / "sys/class/net/eth1");
  all = look();
  EXPECT_EQ(worst(all, "driver", "up0").level, level::fail);
  EXPECT_EQ(worst(all, "driver", "up1").level, level::fail);
  fs::remove_all(root / "sys/bus/pci/devices/0000:03:00.0");
  EXPECT_EQ(worst(look(), "driver", "up1").level, level::fail);
}

TEST_F(doctor_test, room_for_tunnels) {
  put("sys/class/net/eth1/mtu", "1500");
  EXPECT_EQ(worst(look(), "mtu", "up0").level, level::warn);
  EXPECT_NE(worst(look(), "mtu", "up0").right.find("1520"), std::string::npos);
  std::string text = services_text;
  text.insert(text.find("forward"), "mss-clamp: auto, ");
  EXPECT_EQ(worst(look(node_text, text), "mtu", "up0").level, level::ok);
  text.replace(text.find("ipip"), 4, "dsr-l2");
  EXPECT_EQ(worst(look(node_text, text), "mtu", "up0").level, level::ok);
}

TEST_F(doctor_test, rp_filter_and_addresses) {
  put("proc/sys/net/ipv4/conf/eth1/rp_filter", "1");
  EXPECT_EQ(worst(look(), "rp_filter", "up0").level, level::warn);
  put("proc/sys/net/ipv4/conf/all/rp_filter", "2");
  EXPECT_EQ(worst(look(), "rp_filter", "up0").level, level::ok);
  const auto all = look(node_text,
                        "services:\n"
                        "  - {name: a, address: 198.51.100.11, port: 1, forward: ipip, backends: "
                        "[{address: 198.51.100.10}]}\n"
                        "  - {name: b, address: \"2001:db8:f::10\", port: 1, forward: ipip}\n");
  EXPECT_NE(worst(all, "vip", "198.51.100.11").seen.find("on no interface"), std::string::npos);
  EXPECT_EQ(worst(all, "vip", "2001:db8:f::10").seen, "is on an interface of this host");
  EXPECT_EQ(worst(all, "backend", "198.51.100.10").level, level::warn);
}

// Whatever is missing or makes no sense, it says something, and does not end.
TEST_F(doctor_test, an_empty_tree_and_nonsense) {
  const fs::path good = root;
  root = good / "empty";
  fs::create_directory(root);
  EXPECT_EQ(worst(look(), "driver", "up0").level, level::fail);
  EXPECT_FALSE(examine({root.string(), nullptr, nullptr}).empty());
  root = good;
  for (const char* path :
       {"sys/devices/system/cpu/isolated", "sys/devices/system/node/node0/cpulist",
        "sys/devices/system/node/node0/distance", "sys/class/net/eth1/mtu",
        "sys/class/net/eth1/device/numa_node", "proc/net/fib_trie", "proc/net/if_inet6",
        "proc/sys/kernel/osrelease", "proc/sys/net/ipv4/conf/eth1/rp_filter"})
    put(path, "x,-9,4294967295-,3-1,99999999999999999999 \xff|-- ");
  EXPECT_FALSE(look().empty());
}

TEST(doctor, lists_of_cpus) {
  EXPECT_EQ(parse_cpus("0-2,7"), (std::set<unsigned>{0, 1, 2, 7}));
  EXPECT_EQ(parse_cpus(""), std::set<unsigned>{});
  EXPECT_EQ(parse_cpus("x,3-1,5"), std::set<unsigned>{5});
  EXPECT_EQ(format_cpus({0, 1, 2, 7}), "0-2,7");
  EXPECT_EQ(format_cpus({}), "");
}

}  // namespace
}  // namespace sluice::doctor
