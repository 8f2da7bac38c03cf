// Draws the figures in the reader's colours, sorts tables, enlarges pictures.
(function () {
  "use strict";
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var swaps = new Map(JSON.parse(document.getElementById("swaps").textContent).map(function (pair) { return ['"' + pair[0] + '"', '"' + pair[1] + '"']; }));
  function draw(printing) {
    document.querySelectorAll(".plot").forEach(function (box) {
      var text = document.getElementById(box.dataset.figure).textContent;
      if (dark.matches && !printing) {
        text = text.replace(/"#[0-9a-f]{6}"/g, function (colour) { return swaps.get(colour) || colour; });
      }
      var figure = JSON.parse(text);
      if (box.clientWidth < 460) {
        figure.layout.height = Math.min(figure.layout.height, figure.layout.ternary ? 400 : 360);
        figure.layout.font.size = 12;
      }
      box.style.minHeight = "";
      Plotly.react(box, figure.data, figure.layout, { responsive: true, displayModeBar: false });
    });
  }
  draw(false);
  dark.addEventListener("change", function () { draw(false); });
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (item) { item.open = true; });
    draw(true);
  });
  window.addEventListener("afterprint", function () { draw(false); });

  function value(row, column) {
    var cell = row.cells[column];
    var text = cell.dataset.v !== undefined ? cell.dataset.v : cell.textContent.trim();
    var number = Number(text.replace(/,/g, ""));
    return text !== "" && !isNaN(number) ? number : text.toLowerCase();
  }
  document.querySelectorAll("table.sortable").forEach(function (table) {
    table.querySelectorAll("thead button").forEach(function (button) {
      button.addEventListener("click", function () {
        var head = button.closest("th"), column = head.cellIndex, body = table.tBodies[0];
        var up = head.getAttribute("aria-sort") !== "ascending";
        table.querySelectorAll("thead th").forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        Array.from(body.rows).sort(function (a, b) {
          var x = value(a, column), y = value(b, column);
          var order = typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : typeof x === "number" ? -1 : 1;
          return up ? order : -order;
        }).forEach(function (row) { body.appendChild(row); });
      });
    });
  });

  var viewer = document.getElementById("viewer");
  document.querySelectorAll("[data-open]").forEach(function (button) {
    button.addEventListener("click", function () {
      var thumb = document.querySelector('.thumb[data-open="' + button.dataset.open + '"]');
      var row = thumb.closest("tr"), table = row.closest("table"), facts = document.getElementById("viewer-facts");
      document.getElementById("viewer-picture").replaceChildren(thumb.querySelector("svg").cloneNode(true));
      document.getElementById("viewer-title").innerHTML = row.querySelector(".formula").innerHTML;
      facts.replaceChildren();
      Array.from(row.cells).forEach(function (cell, index) {
        if (index < 3) { return; }
        var name = document.createElement("dt"), content = document.createElement("dd");
        name.textContent = table.tHead.rows[0].cells[index].innerText.replace(/[↕↑↓]/g, "").trim();
        content.innerHTML = cell.innerHTML;
        facts.append(name, content);
      });
      viewer.showModal();
    });
  });
  viewer.querySelector(".close").addEventListener("click", function () { viewer.close(); });
  viewer.addEventListener("click", function (event) { if (event.target === viewer) { viewer.close(); } });
})();
