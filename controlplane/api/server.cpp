// SPDX-License-Identifier: Apache-2.0
#include "controlplane/api/server.hpp"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include <httplib.h>

#include "controlplane/api/limited_server.hpp"
#include "dataplane/abi/yaml_reader.hpp"

namespace sluice::api {
namespace {

constexpr std::size_t threads = 32;                   // most of them sleep
constexpr unsigned most_streams = 16;                 // answers that go on; each has a thread
constexpr std::size_t max_field = 200;                // characters of author and reason
constexpr std::size_t skipped_body = 65536;           // bytes of a body that nobody wants
constexpr std::chrono::milliseconds look_every{250};  // whether a client is still there
constexpr std::string_view methods[] = {"GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"};

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> out;
  std::size_t at = 0;
  while (at < path.size()) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    if (end != at) out.push_back(path.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

// answers() tells whether a process listens on a socket.
bool answers(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return true;
  const int done = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const bool nobody = done != 0 && (errno == ECONNREFUSED || errno == ENOENT);
  ::close(fd);
  return !nobody;
}

// printable() keeps what a client calls itself from writing to the operator's terminal.
std::string printable(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) c = '?';
  return text;
}

void fill(httplib::Response& to, const reply& from) {
  to.status = from.status;
  to.set_content(from.body, from.type);
  if (!from.etag.empty()) to.set_header("ETag", from.etag);
  for (const auto& [name, value] : from.headers) to.set_header(name.c_str(), value);
}

// hang_up() ends the connection after this answer.
void hang_up(httplib::Response& out) {
  limited_server::hang_up();
  out.set_header("Connection", "close");
}

// is_other_method(): a word of RFC 9110, but none that is known here.
bool is_other_method(const std::string& word) {
  return !word.empty() &&
         std::all_of(word.begin(), word.end(), [](char c) { return c >= 'A' && c <= 'Z'; }) &&
         std::find(std::begin(methods), std::end(methods), word) == std::end(methods);
}

// is_page(): the web page, which shows only what its reader's token lets it ask for.
bool is_page(const std::vector<std::string>& segments) {
  return !segments.empty() && segments.front() == "ui";
}

request make_request(const httplib::Request& from) {
  request r;
  r.method = from.method == "HEAD" ? "GET" : from.method;
  r.segments = split(from.path);
  for (const auto& [key, value] : from.params) r.query.emplace(key, value);
  r.author = printable(from.get_header_value("X-Sluice-Author").substr(0, max_field));
  r.reason = printable(from.get_header_value("X-Sluice-Reason").substr(0, max_field));
  r.if_match = from.get_header_value("If-Match").substr(0, max_field);
  r.last_event_id = from.get_header_value("Last-Event-ID").substr(0, max_field);
  return r;
}

}  // namespace

class server::impl {
 public:
  // how: nothing on a Unix socket, whose permissions decide who may do everything.
  impl(handler handle, std::optional<access::secured> how, const time_limits& limits)
      : handle_{std::move(handle)},
        tokens_{how ? std::make_shared<const access::token_list>(std::move(how->tokens)) : nullptr},
        limits_{limits},
        http_{limits, how ? std::move(how->tls) : nullptr} {
    http_.new_task_queue = [] { return new httplib::ThreadPool{threads}; };
    http_.set_payload_max_length(yaml::max_bytes);
    http_.set_keep_alive_timeout(limits.idle.count() / 1000);  // what the header says
    const auto plain = [this](const httplib::Request& in, httplib::Response& out) {
      const request r = make_request(in);
      // httplib leaves the body of a GET where it is: the next request is not to be read there.
      const std::string length = in.get_header_value("Content-Length");
      if (in.has_header("Transfer-Encoding") || (!length.empty() && length != "0")) hang_up(out);
      if (const auto no = refusal_of(in, r)) return fill(out, *no);
      answer(out, handle_(r));
    };
    // The body is read here: httplib itself would cut what curl sends as a form.
    const auto with_body = [this](const httplib::Request& in, httplib::Response& out,
                                  const httplib::ContentReader& read) {
      request r = make_request(in);
      if (const auto no = refusal_of(in, r)) {
        std::size_t seen = 0;
        const bool whole = !in.is_multipart_form_data() && read([&](const char*, std::size_t n) {
          seen += n;
          return seen <= skipped_body;
        });
        if (!whole) hang_up(out);
        return fill(out, *no);
      }
      bool too_large = false;
      if (in.is_multipart_form_data()) {
        hang_up(out);
        return fill(out, refuse(400, "the body is one JSON or YAML document, not a form"));
      }
      read([&](const char* data, std::size_t n) {
        too_large = r.body.size() + n > yaml::max_bytes;
        if (!too_large) r.body.append(data, n);
        return !too_large;
      });
      if (out.status == 413 || too_large) {
        hang_up(out);
        return fill(out, refuse(413, "the body is larger than 16 MiB"));
      }
      if (out.status >= 400) return;
      answer(out, handle_(r));
    };
    const std::string any = R"([\s\S]*)";
    http_.Get(any, plain);
    http_.Options(any, plain);
    http_.Put(any, with_body);
    http_.Post(any, with_body);
    http_.Patch(any, with_body);
    http_.Delete(any, with_body);
    http_.set_error_handler([](const httplib::Request& in, httplib::Response& out) {
      if (!out.body.empty()) return;
      hang_up(out);  // who knows what follows
      if (out.status == 400 && is_other_method(in.method))
        return fill(out, refuse(405, printable(in.method.substr(0, max_field)) +
                                         " is no method of this API; see docs/api.md"));
      const char* text = out.status == 413   ? "the body is larger than 16 MiB"
                         : out.status == 414 ? "the path is too long"
                                             : "the request cannot be understood";
      fill(out, refuse(out.status, text));
    });
    http_.set_exception_handler(
        [](const httplib::Request&, httplib::Response& out, std::exception_ptr e) {
          std::string text = "internal error";
          try {
            std::rethrow_exception(std::move(e));
          } catch (const std::exception& known) {
            text += std::string{": "} + known.what();
          } catch (...) {
          }
          fill(out, refuse(500, text));
        });
  }

  tl::expected<void, std::string> listen(const std::string& path, unsigned mode) {
    if (path.size() >= sizeof(sockaddr_un{}.sun_path))
      return tl::unexpected{path + ": longer than a socket's name may be"};
    struct stat st {};
    if (::lstat(path.c_str(), &st) == 0) {
      if (!S_ISSOCK(st.st_mode)) return tl::unexpected{path + ": is there, and not a socket"};
      if (answers(path)) return tl::unexpected{path + ": another process serves there"};
      ::unlink(path.c_str());
    }
    http_.set_address_family(AF_UNIX);
    // The socket is never there with more permissions than it shall have.
    const mode_t before = ::umask(~mode & 0777);
    const bool bound = http_.bind_to_port(path, 1);
    const int why = errno;
    ::umask(before);
    if (!bound)
      return tl::unexpected{path + ": cannot listen: " + std::generic_category().message(why)};
    path_ = path;
    start();
    return {};
  }

  tl::expected<void, std::string> listen(const ip_port& at) {
    http_.set_address_family(at.address.is_v4() ? AF_INET : AF_INET6);
    // httplib would share the port with any other process that asks for it.
    http_.set_socket_options([](socket_t fd) {
      const int on = 1;
      ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    });
    if (!http_.bind_to_port(format_ip(at.address), at.port))
      return tl::unexpected{"the API cannot listen on " + format_ip_port(at) + ": " +
                            std::generic_category().message(errno) +
                            " (controlplane.api.listen.address)"};
    start();
    return {};
  }

  void renew(access::secured how) {
    http_.use(std::move(how.tls));
    auto tokens = std::make_shared<const access::token_list>(std::move(how.tokens));
    const std::lock_guard lock{tokens_mutex_};
    tokens_ = std::move(tokens);
  }

  void stop() {
    if (!thread_.joinable()) return;
    http_.end();
    thread_.join();
    if (!path_.empty()) ::unlink(path_.c_str());
  }

 private:
  void start() {
    thread_ = std::thread{[this] { http_.listen_after_bind(); }};
    while (!http_.is_running()) std::this_thread::yield();
  }

  // refusal_of() is the answer to those who may not ask this; nothing: they may.
  [[nodiscard]] std::optional<reply> refusal_of(const httplib::Request& in,
                                                const request& r) const {
    const auto tokens = [this] {
      const std::lock_guard lock{tokens_mutex_};
      return tokens_;
    }();
    if (!tokens || is_page(r.segments)) return std::nullopt;
    constexpr std::string_view scheme = "Bearer ";
    const std::string header = in.get_header_value("Authorization");
    const auto ask_for_token = [](std::string why) {
      reply no = refuse(401, std::move(why), "Authorization");
      no.headers.emplace_back("WWW-Authenticate", "Bearer realm=\"sluice\"");
      return no;
    };
    if (header.empty())
      return ask_for_token("a token is needed: Authorization: Bearer TOKEN (sluice --token-file)");
    if (!header.starts_with(scheme))
      return ask_for_token("is not understood; expected Bearer TOKEN");
    const auto role = tokens->find(std::string_view{header}.substr(scheme.size()));
    if (!role) return ask_for_token("this token is not known here");
    const bool beat = r.method == "POST" && r.segments.size() == 2 && r.segments[1] == "heartbeats";
    if (*role == access::role::heartbeat && !beat)
      return refuse(403, "this token allows heartbeats only", "Authorization");
    if (*role == access::role::read_only && r.method != "GET")
      return refuse(
          403, "this token allows reading only; " + printable(r.method) + " needs an admin token",
          "Authorization");
    return std::nullopt;
  }

  void answer(httplib::Response& out, reply from) {
    if (!from.more) return fill(out, from);
    const std::shared_ptr<unsigned> place{new unsigned{streams_.fetch_add(1)}, [this](unsigned* n) {
                                            streams_.fetch_sub(1);
                                            delete n;
                                          }};
    if (*place >= most_streams)
      return fill(out, refuse(503, std::to_string(most_streams) +
                                       " clients follow events already, which is the most"));
    out.status = from.status;
    for (const auto& [name, value] : from.headers) out.set_header(name.c_str(), value);
    out.set_chunked_content_provider(
        from.type,
        [this, place, more = std::move(from.more), first = std::move(from.body),
         spoke = std::chrono::steady_clock::now()](std::size_t, httplib::DataSink& sink) mutable {
          limited_stream& stream = limited_server::stream();
          if (stream.hung_up()) return false;
          std::string piece = std::exchange(first, {});
          if (piece.empty()) {
            auto next = more(look_every);
            if (!next) {
              sink.done();
              return true;
            }
            piece = std::move(*next);
          }
          if (piece.empty()) {
            if (std::chrono::steady_clock::now() - spoke < limits_.heartbeat) return true;
            piece = ":\n\n";
          }
          spoke = std::chrono::steady_clock::now();
          // One that does not read is hung up on.
          stream.allow(limits_.piece);
          const bool sent = sink.write(piece.data(), piece.size());
          stream.allow(limits_.piece + limits_.heartbeat);
          return sent;
        });
  }

  std::string path_;
  handler handle_;
  mutable std::mutex tokens_mutex_;
  std::shared_ptr<const access::token_list> tokens_;  // null: none is asked for
  time_limits limits_;
  std::atomic<unsigned> streams_{0};
  limited_server http_;
  std::thread thread_;
};

server::server(std::unique_ptr<impl> i) : impl_{std::move(i)} {}
server::~server() {
  stop();
}

void server::renew(access::secured how) {
  impl_->renew(std::move(how));
}

void server::stop() {
  impl_->stop();
}

tl::expected<std::unique_ptr<server>, std::string> server::listen(const std::string& path,
                                                                  unsigned mode, handler handle,
                                                                  const time_limits& limits) {
  auto i = std::make_unique<impl>(std::move(handle), std::nullopt, limits);
  if (auto done = i->listen(path, mode); !done) return tl::unexpected{done.error()};
  return std::unique_ptr<server>{new server{std::move(i)}};
}

tl::expected<std::unique_ptr<server>, std::string> server::listen_tls(const ip_port& at,
                                                                      access::secured how,
                                                                      handler handle,
                                                                      const time_limits& limits) {
  auto i = std::make_unique<impl>(std::move(handle), std::move(how), limits);
  if (auto done = i->listen(at); !done) return tl::unexpected{done.error()};
  return std::unique_ptr<server>{new server{std::move(i)}};
}

}  // namespace sluice::api
