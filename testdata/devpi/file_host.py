"""Print the host that an index keeps its files on, from the page of a project."""
import sys
import urllib.parse
import urllib.request

index = sys.argv[1].rstrip("/") + "/idna/"
request = urllib.request.Request(index, headers={"Accept": "text/html"})
page = urllib.request.urlopen(request, timeout=60).read().decode()
link = page.split('href="', 1)[1].split('"', 1)[0]
print(urllib.parse.urlsplit(urllib.parse.urljoin(index, link)).netloc)
