document.querySelectorAll("table.sortable").forEach(function (table) {
  table.querySelectorAll("thead th").forEach(function (head, column) {
    var button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", function () {
      var up = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("thead th").forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      var body = table.tBodies[0], key = function (row) { var cell = row.cells[column]; return cell.dataset.sort || cell.textContent; };
      [...body.rows].sort(function (a, b) {
        var x = key(a), y = key(b), numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
        return (numbers ? x - y : x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1);
      }).forEach(function (row) { body.append(row); });
    });
  });
});
var folded = [];
addEventListener("beforeprint", function () {
  folded = [...document.querySelectorAll("details:not([open]):not([data-unprinted])")];
  folded.forEach(function (part) { part.open = true; });
});
addEventListener("afterprint", function () { folded.forEach(function (part) { part.open = false; }); });
