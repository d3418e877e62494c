// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/client.hpp"

#include <httplib.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <fstream>

#include <fmt/format.h>

namespace sluice::cli {

namespace {

std::string user_name() {
  if (const passwd* p = ::getpwuid(::getuid()); p != nullptr && p->pw_name != nullptr)
    return p->pw_name;
  return std::to_string(::getuid());
}

// The server's errors, as the contract writes them: FILE:LINE: key: message.
std::vector<std::string> error_lines(int status, const std::string& body) {
  std::vector<std::string> lines;
  const json answer = json::parse(body, nullptr, false);
  if (answer.is_object() && answer.contains("errors") && answer["errors"].is_array()) {
    for (const json& e : answer["errors"]) {
      std::string line;
      if (const std::string file = e.value("file", ""); !file.empty()) {
        line += file;
        if (const int n = e.value("line", 0); n > 0) line += ":" + std::to_string(n);
        line += ": ";
      }
      if (const std::string key = e.value("key", ""); !key.empty()) line += key + ": ";
      lines.push_back(line + e.value("message", "refused"));
    }
  }
  if (lines.empty())
    lines.push_back(fmt::format("the control plane answered with HTTP status {}", status));
  return lines;
}

}  // namespace

std::string percent_encode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (std::isalnum(u) != 0 || c == '-' || c == '_' || c == '.' || c == '~') {
      out += c;
    } else {
      out += fmt::format("%{:02X}", u);
    }
  }
  return out;
}

namespace {

// check_socket() asks the file system first: httplib says only "connection failed".
void check_socket(const std::string& socket) {
  struct stat st {};
  if (::stat(socket.c_str(), &st) != 0) {
    const std::string line = fmt::format(
        "{}: {}: is sluice-controlplane running? (--socket PATH names "
        "another socket)",
        socket, std::strerror(errno));
    if (errno == ENOENT || errno == ENOTDIR) throw unreachable(line);
    throw failure(line);
  }
  if (!S_ISSOCK(st.st_mode)) throw failure(socket + ": is not a socket");
  if (::access(socket.c_str(), R_OK | W_OK) != 0)
    throw failure(
        fmt::format("{}: {}: its owner and group may use it", socket, std::strerror(errno)));
}

// read_token() returns the first line of a file.
std::string read_token(const std::string& file) {
  std::ifstream in{file};
  std::string token;
  if (!in || !std::getline(in, token)) throw failure(file + ": cannot be read, or is empty");
  while (!token.empty() && std::isspace(static_cast<unsigned char>(token.back())) != 0)
    token.pop_back();
  if (token.empty()) throw failure(file + ": its first line holds no token");
  return token;
}

httplib::Client make_http(const endpoint& at) {
  if (at.url.empty()) {
    check_socket(at.socket);
    httplib::Client http{at.socket};
    http.set_address_family(AF_UNIX);
    return http;
  }
  // The token would be readable on the way.
  if (!at.url.starts_with("https://"))
    throw failure(at.url + ": is no https:// URL (--url, $SLUICE_URL)");
  std::string url = at.url;
  while (url.back() == '/') url.pop_back();
  httplib::Client http{url};
  if (!http.is_valid()) throw failure(at.url + ": expected https://HOST:PORT");
  if (!at.ca.empty()) {
    if (::access(at.ca.c_str(), R_OK) != 0)
      throw failure(fmt::format("{}: {}", at.ca, std::strerror(errno)));
    http.set_ca_cert_path(at.ca);
  }
  http.enable_server_certificate_verification(true);
  return http;
}

[[noreturn]] void throw_no_answer(const std::string& name, httplib::Error error,
                                  std::chrono::seconds timeout) {
  switch (error) {
    case httplib::Error::Connection:
      throw unreachable(fmt::format("{}: nobody answers: is sluice-controlplane running?", name));
    case httplib::Error::SSLServerVerification:
      throw failure(name +
                    ": its certificate is not trusted, or is another host's (--ca FILE names who "
                    "vouches for it)");
    case httplib::Error::SSLConnection:
      throw failure(name + ": does not speak TLS");
    case httplib::Error::SSLLoadingCerts:
      throw failure(name + ": the file of --ca holds no certificate");
    default:
      throw failure(fmt::format("{}: no answer within {} s ({})", name, timeout.count(),
                                httplib::to_string(error)));
  }
}

}  // namespace

std::string client::call(const std::string& method, const std::string& path, const query& q,
                         const std::string& body,
                         const std::function<bool(std::string_view)>& receive) {
  httplib::Client http = make_http(at_);
  http.set_connection_timeout(timeout_);
  // A stream is silent for up to five seconds.
  http.set_read_timeout(receive ? std::max(timeout_, std::chrono::seconds{15}) : timeout_);
  http.set_write_timeout(timeout_);
  // Paths are percent-encoded here: names and addresses may hold ':' and '/'.
  http.set_url_encode(false);

  httplib::Request request;
  request.method = method;
  request.path = path;
  char separator = '?';
  for (const auto& [name, value] : q) {
    request.path += separator + name + "=" + percent_encode(value);
    separator = '&';
  }
  request.headers = {{"X-Sluice-Author", user_name()}};
  if (at_.url.empty()) request.headers.emplace("Host", "localhost");
  if (!at_.token_file.empty() && !at_.url.empty())
    request.headers.emplace("Authorization", "Bearer " + read_token(at_.token_file));
  if (!reason_.empty()) request.headers.emplace("X-Sluice-Reason", percent_encode(reason_));
  if (!expected_.empty() && method != "GET") request.headers.emplace("If-Match", expected_);
  if (method != "GET") {
    request.body = body;
    request.headers.emplace("Content-Type", "application/yaml");
  }
  int status = 0;
  std::string refused;  // the errors, where a stream was asked for
  bool enough = false;
  if (receive) {
    request.response_handler = [&](const httplib::Response& r) {
      status = r.status;
      return true;
    };
    request.content_receiver = [&](const char* data, std::size_t n, std::uint64_t, std::uint64_t) {
      if (status == 200) return !(enough = !receive({data, n}));
      refused.append(data, n);
      return refused.size() < 65536;
    };
  }
  const httplib::Result result = http.send(request);
  if (enough) return {};
  if (!result) {
    if (receive && status == 200) throw failure(name() + ": the control plane has hung up");
    throw_no_answer(name(), result.error(), timeout_);
  }
  if (receive && result->status >= 300) throw failure(error_lines(result->status, refused));
  if (result->status < 200 || result->status > 299)
    throw failure(error_lines(result->status, result->body));
  return result->body;
}

namespace {
json parse_answer(const std::string& socket, const std::string& body) {
  json answer = json::parse(body, nullptr, false);
  if (answer.is_discarded()) throw failure(socket + ": the answer is not JSON");
  return answer;
}
}  // namespace

json client::get(std::string_view path, const query& q) {
  return parse_answer(name(), call("GET", std::string{path}, q, {}));
}
std::string client::get_text(std::string_view path, const query& q) {
  return call("GET", std::string{path}, q, {});
}
json client::put(std::string_view path, const query& q, const std::string& body) {
  return parse_answer(name(), call("PUT", std::string{path}, q, body));
}
json client::post(std::string_view path, const json& body, const query& q) {
  return parse_answer(name(), call("POST", std::string{path}, q, body.dump()));
}
json client::patch(std::string_view path, const json& body) {
  return parse_answer(name(), call("PATCH", std::string{path}, {}, body.dump()));
}
void client::follow(std::string_view path, const query& q,
                    const std::function<bool(std::string_view)>& receive) {
  call("GET", std::string{path}, q, {}, receive);
}
json client::remove(std::string_view path) {
  return parse_answer(name(), call("DELETE", std::string{path}, {}, {}));
}

}  // namespace sluice::cli
