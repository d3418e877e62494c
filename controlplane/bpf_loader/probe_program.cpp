// SPDX-License-Identifier: Apache-2.0
#include "controlplane/bpf_loader/probe_program.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>

#include <cerrno>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "dataplane/abi/bpf_objects.hpp"
#include "dataplane/abi/file_descriptor.hpp"

namespace sluice::bpf_loader {
namespace {

// libbpf prints what we tell in our own words.
class quiet_libbpf {
 public:
  quiet_libbpf() : before_{libbpf_set_print(nullptr)} {}
  ~quiet_libbpf() { libbpf_set_print(before_); }
  quiet_libbpf(const quiet_libbpf&) = delete;
  quiet_libbpf& operator=(const quiet_libbpf&) = delete;

 private:
  libbpf_print_fn_t before_;
};

std::string error_text(const std::string& what, int error) {
  return what + ": " + std::generic_category().message(error < 0 ? -error : error);
}

bpf_tc_hook hook_of(int ifindex) {
  bpf_tc_hook hook{};
  hook.sz = sizeof hook;
  hook.ifindex = ifindex;
  hook.attach_point = BPF_TC_INGRESS;
  return hook;
}

bpf_tc_opts options_of(std::uint32_t handle) {
  bpf_tc_opts options{};
  options.sz = sizeof options;
  options.handle = handle;
  options.priority = probe_program::priority;
  return options;
}

// attached_id() is the program at our place, 0 when there is none.
std::uint32_t attached_id(int ifindex, std::uint32_t handle) {
  const bpf_tc_hook hook = hook_of(ifindex);
  bpf_tc_opts options = options_of(handle);
  return bpf_tc_query(&hook, &options) == 0 ? options.prog_id : 0;
}

std::uint32_t id_of(int program) {
  bpf_prog_info info{};
  std::uint32_t size = sizeof info;
  return bpf_obj_get_info_by_fd(program, &info, &size) == 0 ? info.id : 0;
}

// is_ours() doubts what has our priority and handle. Who may not look (it takes CAP_SYS_ADMIN)
// has to believe these.
bool is_ours(std::uint32_t id) {
  const int fd = bpf_prog_get_fd_by_id(id);
  if (fd < 0) return errno == EPERM;
  const file_descriptor program{fd};
  bpf_prog_info info{};
  std::uint32_t size = sizeof info;
  return bpf_obj_get_info_by_fd(program.get(), &info, &size) == 0 &&
         std::string_view{info.name} == SLUICE_PROBE_RX_PROGRAM;
}

void detach(int ifindex, std::uint32_t handle) {
  const bpf_tc_hook hook = hook_of(ifindex);
  const bpf_tc_opts options = options_of(handle);
  bpf_tc_detach(&hook, &options);
}

}  // namespace

void probe_program::closer::operator()(bpf_object* object) const noexcept {
  bpf_object__close(object);
}

probe_program::probe_program(object_ptr object, std::uint32_t handle)
    : object_{std::move(object)}, handle_{handle} {
  const auto program = [&](const char* name) {
    const bpf_program* p = bpf_object__find_program_by_name(object_.get(), name);
    return p == nullptr ? -1 : bpf_program__fd(p);
  };
  tx_ = program(SLUICE_PROBE_TX_PROGRAM);
  rx_ = program(SLUICE_PROBE_RX_PROGRAM);
  config_ = bpf_object__find_map_fd_by_name(object_.get(), SLUICE_PROBE_CONFIG_MAP);
  targets_ = bpf_object__find_map_fd_by_name(object_.get(), SLUICE_PROBE_TARGETS_MAP);
  stats_ = bpf_object__find_map_fd_by_name(object_.get(), SLUICE_PROBE_STATS_MAP);
}

probe_program::~probe_program() {
  remove_leftovers(handle_);
}

tl::expected<std::unique_ptr<probe_program>, std::string> probe_program::load(
    std::uint32_t handle, std::uint32_t targets) {
  const quiet_libbpf quiet;
  const auto path = find_bpf_object("probe");
  if (path.empty()) return tl::unexpected{std::string{"probe.bpf.o is not installed"}};
  object_ptr object{bpf_object__open_file(path.c_str(), nullptr)};
  if (!object) return tl::unexpected{error_text(path.string(), errno)};
  // The kernel makes buckets for as many.
  bpf_map* const map = bpf_object__find_map_by_name(object.get(), SLUICE_PROBE_TARGETS_MAP);
  if (map != nullptr) bpf_map__set_max_entries(map, targets);
  if (const int error = bpf_object__load(object.get()); error != 0)
    return tl::unexpected{error_text("the kernel does not take " + path.string(), error)};
  std::unique_ptr<probe_program> made{new probe_program{std::move(object), handle}};
  if (made->tx_ < 0 || made->rx_ < 0 || made->config_ < 0 || made->targets_ < 0 || made->stats_ < 0)
    return tl::unexpected{path.string() + ": is of another version"};
  return made;
}

std::string probe_program::configure(const sluice_probe_config& config) {
  const std::uint32_t zero = 0;
  if (bpf_map_update_elem(config_, &zero, &config, BPF_ANY) == 0) return {};
  return error_text("writing " SLUICE_PROBE_CONFIG_MAP, errno);
}

std::string probe_program::put(std::uint32_t mark, const sluice_probe_target& target) {
  if (bpf_map_update_elem(targets_, &mark, &target, BPF_ANY) == 0) return {};
  return error_text("writing " SLUICE_PROBE_TARGETS_MAP, errno);
}

void probe_program::erase(std::uint32_t mark) {
  bpf_map_delete_elem(targets_, &mark);
}

std::string probe_program::attach(int ifindex, int program) {
  const quiet_libbpf quiet;
  if (const std::uint32_t there = attached_id(ifindex, handle_);
      there != 0 && there == id_of(program))
    return {};
  bpf_tc_hook hook = hook_of(ifindex);
  if (const int error = bpf_tc_hook_create(&hook); error != 0 && error != -EEXIST)
    return error_text("clsact", error);
  bpf_tc_opts options = options_of(handle_);
  options.prog_fd = program;
  options.flags = BPF_TC_F_REPLACE;
  if (const int error = bpf_tc_attach(&hook, &options); error != 0)
    return error_text("tc filter", error);
  return {};
}

std::string probe_program::attach_tx(int ifindex) {
  return attach(ifindex, tx_);
}

std::string probe_program::attach_rx(int ifindex) {
  return attach(ifindex, rx_);
}

void probe_program::remove_leftovers(std::uint32_t handle) {
  const quiet_libbpf quiet;
  struct if_nameindex* const all = ::if_nameindex();
  if (all == nullptr) return;
  for (const struct if_nameindex* i = all; i->if_index != 0; ++i) {
    const int ifindex = static_cast<int>(i->if_index);
    if (const std::uint32_t id = attached_id(ifindex, handle); id != 0 && is_ours(id))
      detach(ifindex, handle);
  }
  ::if_freenameindex(all);
}

std::array<std::uint64_t, SLUICE_PROBE_COUNTERS> probe_program::counters() const {
  std::array<std::uint64_t, SLUICE_PROBE_COUNTERS> sums{};
  const int cpus = libbpf_num_possible_cpus();
  if (cpus <= 0) return sums;
  std::vector<std::uint64_t> values(static_cast<std::size_t>(cpus));
  for (std::uint32_t i = 0; i < sums.size(); ++i) {
    if (bpf_map_lookup_elem(stats_, &i, values.data()) != 0) continue;
    for (const std::uint64_t v : values) sums[i] += v;
  }
  return sums;
}

}  // namespace sluice::bpf_loader
